"""Vertex jobs (Pregel) on the masterless cluster: the room above `tasks`, which it is told in terms of.

A vertex job is a kind of job like any other: a director here plans its stages, a runtime in the worker computes its
supersteps. Neither exists in this release; the room stands so that layers and contracts already know it.
"""
