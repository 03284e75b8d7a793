"""Separation of tenants: API keys, token secrets, join tokens, names, links into their rooms.

Here: pure functions on keys, tokens, names and links. Not here: SQL (store/) and HTTP (api/).
Read tokens.py first, then keys.py and links.py.
"""
