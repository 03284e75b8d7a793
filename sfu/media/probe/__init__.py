"""Media clients for `sfu doctor`: processes of their own, as media workers are, that test a server from outside.

pipes.py opens a way to the server (UDP, TCP, a TURN server), peer.py does ICE, DTLS and SRTP on it. call.py tests a
running server over its signalling, capacity.py measures a worker that it starts itself. Both print JSON lines.
"""
