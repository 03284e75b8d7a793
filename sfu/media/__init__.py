"""The media plane: one asyncio process per core. Nothing here imports trio, Quart or SQL.

Layers, each importing only lower ones: rtp/ (pure), transport/, bandwidth/ (pure), streams/, peer/, worker.py.
A packet comes in through transport/demux.py and streams/ingress.py and goes out through streams/fanout.py.
A command from the control plane comes in through worker.py and reaches peer/.
"""
