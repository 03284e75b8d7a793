"""The control plane as one process of its machine: its clock, phases, periodic tasks, counters, files and users.

Here: what any part of it may use. Not here: settings, HTTP, SQL, calls; nothing of the media plane imports it.
Read lifecycle.py (phases from start to stop), clock.py (time that counts) and background.py (tasks that carry on).
metrics.py counts. systemd.py, private.py and users.py face the machine: its service manager, files and users.
"""
