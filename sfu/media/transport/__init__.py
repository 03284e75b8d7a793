"""From datagrams to decrypted packets and back: sockets, ICE-lite, DTLS, SRTP, one UDP port for all peers.

Not here: streams, rooms, SDP.
Read sockets.py and demux.py (which peer sent a datagram), ice.py, dtls.py and srtp.py, then transport.py, one client's
transport as the layers above use it. libc.py and rows.py are the batched system calls and their buffers.
"""
