"""The network around the server: this machine's own addresses, and TURN servers that relay.

Here: what is true without settings. Not here: connectivity checks, which both planes read (sfu/stun.py), what this
server listens at and advertises, and sockets that carry media (media/transport/) or HTTP (web/).
Read interfaces.py (local addresses and their changes), turn.py (URLs and credentials of relays), then relays.py: whose
media comes through one.
"""
