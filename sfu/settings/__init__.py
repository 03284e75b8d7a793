"""Settings: each variable with its default, unit and description, how its text is read, and the file that sets it.

Here: what a setting may be. Not here: what it does, which is with whoever reads `Config`, and how a running server
takes a new one over (sfu/serving/reload.py).
Read config.py first: its fields are the only list of settings. values.py parses the text of one; settings_file.py reads
the file that a service and its commands share.
"""
