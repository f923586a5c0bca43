"""What a client (the CLI, a Python program) and a daemon say to each other. Numbers 100 to 199.

A client connects to the daemon's Unix socket (mode 0600), or over TLS to a member that it remembers. The daemon
speaks first with `Welcome`. Every request carries a number of the client's choice; every answer repeats it. A
request has exactly one answer, except `Watch`, whose `JobUpdate`s go on until one shows a job that is over, `Follow`,
whose `News` never end, and `ReadPart` / `ReadLog`, whose chunks end with one marked `last`.

Any node answers any request: what concerns a job led elsewhere is passed on to its leader.
"""

from __future__ import annotations

from p2premap.control import answers, calls, data, jobs, membership, nodes, web
from p2premap.wire import Message, Registry

CLIENT_MESSAGES: tuple[type[Message], ...] = (
    jobs.Submit, jobs.Watch, jobs.ListJobs, jobs.Cancel, jobs.Why, jobs.Restart, jobs.FindHome, jobs.AcceptFork,
    jobs.CleanUp,
    data.PutBlob, data.LookForBlobs, data.StartFile, data.FileGrew, data.FinishFile, data.ReadBlob, data.ReadPart,
    data.FindPart, data.ReadLog, data.Remember,
    calls.OpenCalls, calls.Calls,
    nodes.ListNodes, nodes.GetStatus, nodes.Diagnose, nodes.TryAddresses, nodes.Announce, nodes.Stop, nodes.Drain,
    nodes.CountSole,
    membership.MakeInvite, membership.Join, membership.LeaveCluster,
    membership.Rotate, membership.PrepareSecret, membership.SwitchSecret, membership.DropSecret,
    web.OpenWeb, web.Follow, web.SetNode, web.RemoveJob, web.ListTasks, web.LookAtJob,
)  # fmt: skip
"""What a client may say."""

DAEMON_MESSAGES: tuple[type[Message], ...] = (
    answers.Welcome, answers.Refused, answers.Done, answers.Chunk,
    jobs.Submitted, jobs.JobUpdate, jobs.Jobs, jobs.HomeFound, jobs.CleanedUp,
    data.BlobsMissing, data.PartFound, data.FileStarted, data.BlobKept, data.BlobHere, data.Remembered,
    calls.CallsOpened, calls.CallsEnded,
    nodes.Nodes, nodes.Status, nodes.Diagnosis, nodes.Tried, nodes.Announced, nodes.Counted,
    membership.Invited, membership.Rotated,
    web.WebOpened, web.News, web.Tasks, web.JobLooked,
)  # fmt: skip
"""What a daemon answers."""

FROM_CLIENT = Registry(CLIENT_MESSAGES)
FROM_DAEMON = Registry(DAEMON_MESSAGES)
"""Made here and named in `p2premap.protocol` too: a command need not load what only nodes say to each other."""
