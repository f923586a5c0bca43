"""Every message of every kind of connection, in one explicit table. Numbers are never reused.

====== ============================ =====================================
1-19   gossip                       datagrams and links
20-39  hello, invite, bulk          `p2premap.node` (before and beside links)
40-55  tasks                        links
56-79  election and ledger          links
80-99  vertex                       links and bulk
100-   control                      clients' sockets
200-   worker processes             a socketpair, see `p2premap.worker`
====== ============================ =====================================
"""

from __future__ import annotations

from p2premap import control
from p2premap.election import messages as election
from p2premap.gossip import messages as gossip
from p2premap.tasks import messages as tasks
from p2premap.wire import Registry

GOSSIP = Registry(gossip.MESSAGES, header_bytes_max=64 << 10)
"""What a datagram may carry."""

TASKS: tuple[type, ...] = (
    tasks.Assign, tasks.Busy, tasks.AttemptsEnded, tasks.StopAttempts, tasks.ForgetJob, tasks.Recount,
    tasks.Holding, tasks.Keep, tasks.Kept, tasks.Reserve, tasks.Reserved, tasks.Shed,
)  # fmt: skip

LINK = Registry((*gossip.MESSAGES, *TASKS, *election.MESSAGES))
"""What the link between two members may carry."""

FROM_CLIENT = control.FROM_CLIENT
FROM_DAEMON = control.FROM_DAEMON
