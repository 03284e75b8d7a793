"""Packet formats: RTP, RTCP, codecs, payload descriptors, sequence numbers. Pure: no sockets, no timers.

Not here: anything that knows a peer, a stream or an address.
Read headers.py and codecs.py first; rtcp.py and twcc.py read and write feedback; vp8.py, vp9.py and keyframe.py
read payloads.
"""
