"""The jobs that one node knows: by id, by submission key, those that it leads, those that are over."""

from __future__ import annotations

from p2premap.election import events, messages
from p2premap.election.boots import BootCheck
from p2premap.election.context import Context
from p2premap.election.forks import Forks
from p2premap.election.job import Job
from p2premap.election.records import ForgetJob, JobRecord
from p2premap.election.replica import Replica
from p2premap.ids import JobId


class JobTable:
    """See the module.

    Args:
        context: shared by the parts of one core.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.all: dict[JobId, Job] = {}
        self._keys: dict[bytes, JobId] = {}
        self.leading: dict[JobId, None] = {}
        self._inactive: dict[JobId, None] = {}
        """Jobs that are over or have moved away, the oldest first."""
        self.forks = Forks(context, self.all, self.add, self.remove)

    def get(self, job: JobId) -> Job | None:
        """The job, if it is known here."""
        return self.all.get(job)

    def find(self, key: bytes) -> JobRecord | None:
        """The job that is known here under this submission key."""
        job = self._keys.get(key)
        record = self.all[job].replica.record if job is not None else None
        return None if record is None or record.gone else record

    def active(self) -> list[Job]:
        """Jobs that are neither over nor moved away; each is touched."""
        active = [job for job in self.all.values() if job.replica.active]
        for job in active:
            self._context.touch(job.replica.job)
        return active

    def add(self, replica: Replica, *, brought: bool, fresh: bool) -> Job:
        """It is at this node from now on; see `p2premap.election.job.Job`. `fresh`: it came here in this life."""
        boots = BootCheck(self._context.me, fresh=fresh, amnesiac=replica.record.amnesiac)
        job = Job(self._context, replica, brought=brought, boots=boots)
        self.all[replica.job] = job
        if replica.record.key:
            self._keys[replica.record.key] = replica.job
        job.stranded = self.forks.open
        if replica.record.origin:
            self.forks.known(job)
        if (fork := self.forks.of(replica.job)) is not None:
            job.fork = fork
        self._context.touch(replica.job)
        return job

    def remove(self, job: Job) -> None:
        """It is not known here any more; the disk may still have it."""
        record = job.replica.record
        del self.all[record.job]
        self.leading.pop(record.job, None)
        self._inactive.pop(record.job, None)
        if self._keys.get(record.key) == record.job:
            del self._keys[record.key]

    def forget(self, job: Job) -> None:
        """The same, and the disk forgets it too."""
        self.remove(job)
        self._context.journal.write(ForgetJob(job=job.replica.job), sync=False)

    def conclude(self, job: Job, view: bytes) -> None:
        """The job is over: its leader says so here, or somebody tells."""
        replica, context = job.replica, self._context
        others = job.leadership.others() if job.leadership is not None else ()
        job.retire()
        replica.conclude(view, lambda: context.out.append(events.Concluded(job=replica.job, view=view)))
        for node in others:
            if context.reachable(node):
                context.send(node, messages.Over(job=replica.job, view=view))

    def accept(self, fork: Job, key: bytes = b"") -> None:
        """This fork is the job from now on, and is found under its key."""
        self.forks.accept(fork, key)
        self._keys[fork.replica.record.key] = fork.replica.job

    def settle(self) -> None:
        """Whatever happened to a job may have changed when it wants to be looked at, and whether it is led here."""
        touched = self._context.touched
        while touched:
            job_id = next(iter(touched))
            del touched[job_id]
            job = self.all.get(job_id)
            if job is not None and job.leadership is not None:
                self.leading[job_id] = None
            else:
                self.leading.pop(job_id, None)
            if job is not None:
                self.forks.led(job_id, job.leader)
                self._context.agenda.put(job_id, job.deadline())
                if not job.replica.active and job_id not in self._inactive:
                    self._inactive[job_id] = None
        while len(self._inactive) > self._context.config.concluded_max:
            self.forget(self.all[next(iter(self._inactive))])
