"""Who leads a job, and what a job's replicas have decided: ballots, promises, write-once cells, replica sets.

The room says who leads; what a leader then does is the tasks room's business (`p2premap.tasks`). Start reading at
`ballot`.
"""
