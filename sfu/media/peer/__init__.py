"""Peers: SDP negotiation, what each publishes, what each receives, and how good the call is.

Not here: sockets and packet formats.
Read peer.py, negotiation.py with sections.py and sdp.py, publisher.py with publication.py, subscriber.py, and
room.py.
"""
