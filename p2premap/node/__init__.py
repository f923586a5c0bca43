"""The daemon: the pure rooms composed (`core`), and the trio shell around them. Start reading at `daemon`.

Importing this package imports nothing heavy: the CLI uses some of its modules without trio.
"""
