"""Vertex jobs in worker processes: partitions of a graph, and the supersteps that take them from one state to the next.

`engine` carries mail and meets at barriers; `partition` says what it asks of a form of vertex programs; `objects` is
the form that calls user code once a vertex, `arrays` the one that calls it once a partition.
"""
