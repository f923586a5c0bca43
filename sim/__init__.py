"""The same cores on a virtual clock, a faulty network and disks that forget: one seed, one history.

::

    world.py      the clock, the event queue, machines and the processes on them
    network.py    datagrams: delay, loss, duplicates, reordering, cuts; what each byte costs
    streams.py    dials with their true outcomes, and links
    hosts.py      what stands between the world and a core
    trace.py      the hash of everything that happened, and its last lines for people
    beliefs.py    what every node was last told of every other, and how that compares with the truth
    checkers.py   what must hold after every event, and at set points
    faults.py     schedules of faults from a seed, and how many really happened
    cluster.py    a world of gossip nodes with checkers, ready for a scenario
    scenarios.py  measurements: detection, false failures, healing, leaving, bytes
    cli.py        `p2premap sim`
"""
