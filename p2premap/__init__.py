"""p2premap: a few machines on one network act as one computer for Python.

No head node, nothing to configure, and a job that outlives any machine. The public API is what `__all__` names.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
