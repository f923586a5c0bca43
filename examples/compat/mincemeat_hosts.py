"""Statistics of each node: an endless data source, of which each node is given one key.

p2premap run --compat mincemeat examples/compat/mincemeat_hosts.py
"""

import itertools

import mincemeat


class Endless:
    def __iter__(self):
        return (f"{number}@stats" for number in itertools.count())

    def __getitem__(self, key):
        return ""


def stats(name, corpus):
    import os
    import platform

    yield platform.node(), {"load": os.getloadavg(), "cpus": os.cpu_count(), "system": platform.system()}


def show(transaction, results):
    for host, found in sorted(results.items()):
        for one in found:
            print(host, one["cpus"], "CPUs", one["system"])


server = mincemeat.Server()
server.set_datasource(Endless(), allocation=mincemeat.TaskManager.ONESHOT)
server.mapfn = stats
server.resultfn = show
server.run_server(password="changeme")
