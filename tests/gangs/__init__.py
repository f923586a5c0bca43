"""Gangs on real nodes, and the kind of job that they are tried with."""
