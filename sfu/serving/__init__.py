"""What the server does as a whole, beside serving requests: its greeting, its state, its reload, its end.

Here: what needs several of the packages below at once. Not here: the tasks of one package; server.py starts all.
Read banner.py (what the terminal says at the start), status.py (/livez, /readyz, /health, /metrics), reload.py (SIGHUP)
and stopping.py (SIGTERM, draining).
"""
