"""`sfu doctor`: checks of a server, its machine and its network, each a small function in a table.

finding.py says what a check is and runs them all; checks.py is the table. The checks are in files by subject. phone.py
tests a device instead. server.py is the part that the running server has: what only it knows, and invitations to
connection tests. Media clients are processes of their own (sfu/media/probe).
"""
