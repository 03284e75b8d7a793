"""The signalling protocol as data: what clients send, what the server sends, what both share.

Here: frozen dataclasses, `decode` and `encode`. Not here: sockets, sessions, state; everything is pure.
docs/protocol.md is the same protocol for people; a test compares the two.
Read shared.py, then client_messages.py and server_messages.py (with orders.py).
"""
