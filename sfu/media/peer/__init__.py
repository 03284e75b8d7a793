"""Peers: SDP negotiation, publications, subscriptions, and call quality.

Not here: sockets and packet formats.
Read peer.py, negotiation.py with sections.py and sdp.py, publisher.py with publication.py, subscriber.py, and room.py.
"""
