"""The operator's way into a running server: a Unix socket, the operations behind it, and the audit log of both.

Here: what the server answers to commands. Not here: the commands themselves (commands/), what works without a server
(store/data.py), and REST (api/).
Read control.py (requests and answers), then operations.py (what each one does). unix_socket.py says who may connect.
"""
