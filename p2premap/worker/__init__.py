"""The process that runs user code: `python -m p2premap.worker`, one a slot, started by the node's executor.

The only place that unpickles or imports what users wrote. Start reading at `runtime`.
"""
