"""The packet path: from a publisher's RTP streams to the down tracks of its subscribers.

Not here: SDP, rooms, decisions about who gets what.
Read ingress.py (once per burst), rtp_stream.py (numbers and clock), down_track.py (one subscriber) and fanout.py
(encrypt and send). reception.py and receive_stream.py report upstream; retransmission.py and delivery.py serve
downstream.
"""
