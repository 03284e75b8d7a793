"""From datagrams to decrypted packets and back: sockets, ICE-lite, DTLS, SRTP, one UDP port for all peers.

Not here: tracks, rooms, SDP.
Read sockets.py and demux.py (whose datagram is it), ice.py, dtls.py and srtp.py, then transport.py, which is one
client's transport as the layers above hold it. libc.py and rows.py are the batched system calls and their buffers.
"""
