"""Calls: who enters which room, what they may say there, and what others hear of it.

Here: sessions, rooms, the lobby, chat, moderation and file sharing. Not here: HTTP parsing (web/), SQL (store/),
media (media/).
Read rooms.py (state without I/O), admission.py (who may enter), session.py (one peer), registry.py (all of them),
then entrance.py, where a WebSocket begins, and websocket.py, which reads and writes it.
"""
