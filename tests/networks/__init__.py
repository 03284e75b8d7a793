"""Calls over bad networks: real browsers, the product's own client, and emulated links.

Read `cases.py` first: it has every network with what the call must reach there. `emulator.c` is the links, `lab.py`
connects a server and browsers by them, `trial.py` runs cases, `figures.py` measures, `report.py` and `curves.py` show.
"""
