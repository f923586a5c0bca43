"""Real processes and real faults: jobs must outlive whatever node dies, freezes or loses the network.

``python -m tests.soak --results FILE`` runs what the promises ask for, some hundreds of trials, goes on where it
stopped, and prints a summary. Each trial has nodes, a job and a seed of its own, and asserts that its fault happened
while the job was unfinished. `tests.soak.test_soak` runs a few trials of each case in every test run.
"""
