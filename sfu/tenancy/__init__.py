"""Separation of tenants: API keys, token secrets, join tokens, names.

Here: pure functions on keys, tokens and names. Not here: SQL (store/) and HTTP (api/).
Read tokens.py first, then keys.py.
"""
