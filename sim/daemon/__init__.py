"""The full daemon in a virtual world: the real house, driver, desk and stager of each node, on trio's virtual clock.

::

    determinism.py  one seed, one history: trio's scheduling, its clock, and threads that are none
    clock.py        the world's queue, moved by trio's clock
    pipes.py        streams between processes: cut, held back, broken
    shell.py        what a house is built from here: transport, search, disk, driver, load
    slots.py        an executor that runs attempts in this process, in virtual time
    host.py         one life of one node
    houses.py       a world whose machines run houses
    visitor.py      a client that outlives the node it talks to
    storm.py        jobs under every fault
    userjob.py      a user's own job, and diary.py what it went through

Machines, network, links and faults are those of `p2premap.sim.world`. What is not simulated here, since all nodes share
one clock: clocks that jump, machines that sleep; nor slow disks. Cancelling a node is not a crash: `host` cuts a node
off from its network and its disk first, so that none of its `finally:` can speak.
"""
