"""The HTTP side: the TCP listener, TLS, HTTP/1.1, limits per address, the page's files.

Here: everything between a TCP connection and a request handler. Not here: rooms, tokens, SQL.
Read edge.py first (one port for HTTP and WebSocket), then http1.py, slots.py and app.py.
They use the small modules streams, bodies, origins, preload and tls.
"""
