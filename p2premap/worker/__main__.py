"""`python -m p2premap.worker SOCKET PAGE`: started by the executor with two inherited descriptors.

The process that the executor starts becomes the supervisor; its child runs user code. They part before anything
heavy is imported, so that the supervisor stays small.
"""

from __future__ import annotations

import gc
import os
import sys

from p2premap.lean import load_msgspec


def main(socket: int, page: int) -> None:
    """Part into supervisor and worker."""
    from p2premap.worker import supervisor

    os.set_inheritable(socket, False)
    os.set_inheritable(page, False)
    wake = supervisor.prepare()
    gc.freeze()  # the collector would write to pages that both share: 1 MB
    supervisor_pid = os.getpid()
    worker_pid = os.fork()
    if worker_pid:
        supervisor.supervise(worker_pid, lifeline=socket, page=page, wake=wake)
    else:
        supervisor.leave(wake, supervisor_pid)
        load_msgspec()
        from p2premap.worker.loop import Worker

        Worker(socket, page).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
