"""Benchmarks: `python -m bench [NAME...]`, JSON lines out. A figure without its spread, or without something measured
beside it in the same run, says nothing; so each line has both where that makes sense.
"""
