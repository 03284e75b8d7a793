"""Calls: admission to rooms, the messages of participants, and their delivery to the others.

Here: sessions, rooms, the lobby, chat, moderation and file sharing. Not here: HTTP parsing (web/), SQL (store/),
media (media/).
Read rooms.py (state without I/O), admission.py (who may enter), session.py (one peer), registry.py (all sessions),
then entrance.py, where a WebSocket begins, and websocket.py, which reads and writes it.
"""
