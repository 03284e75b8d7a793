"""The control plane's side of the media workers: their processes, their load, and the addresses that they listen at.

Here: what starts, supervises and picks workers. Not here: what a call says to its worker (calls/media.py), the messages
themselves (sfu/bridge.py) and the other end (media/worker.py).
Read workers.py, then capacity.py (may one more peer come?) and addresses.py (which addresses browsers are told).
"""
