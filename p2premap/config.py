"""Every interval (_s) and limit (_max) of a node, one frozen struct a room, checked at construction.

Nothing here needs to be set: the defaults are the product. Tests and the simulator make their own.
"""

from __future__ import annotations

from p2premap.errors import ConfigError
from p2premap.event import Event


class _Checked(Event, frozen=True, kw_only=True):
    """Refuses negative numbers in any field of a config."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < 0:
                raise ConfigError(f"{name} is {value}; it must not be negative")


class GossipConfig(_Checked, frozen=True, kw_only=True):
    """See `p2premap.gossip.core` for what each of these means."""

    period_s: float = 1.0
    ping_again_s: float = 0.1
    decide_s: float = 0.5
    jurors: int = 3
    refused_again_s: float = 0.05
    suspect_s: float = 2.0
    suspect_pair_s: float = 4.0
    stalled_s: float = 15.0
    ring_links: int = 3
    fanout: int = 3
    spread_s: float = 0.2
    redial_dead_s: float = 5.0
    datagram_bytes_max: int = 1_100
    members_max: int = 100_000
    facts_bytes_max: int = 16 << 10
    load_bytes_per_s: float = 2_048.0
    load_s: float = 1.0
    link_lost_s: float = 0.02
    repair_s: float = 0.5
    repair_datagrams_max: int = 8
    rumours_max: int = 4_096
    dead_kept_s: float = 86_400.0
    dead_max: int = 10_000
    hints_max: int = 1_024
    hint_dials: int = 3
    dial_s: float = 1.0
    dial_stagger_s: float = 0.15
    backoff_s: float = 0.25
    backoff_max_s: float = 60.0
    stranger_s: float = 60.0
    surplus_link_s: float = 10.0
    settled_s: float = 10.0
    leave_s: float = 0.1


class TasksConfig(_Checked, frozen=True, kw_only=True):
    """See `p2premap.tasks.coordinator` and `p2premap.tasks.worker`."""

    batch_s: float = 0.1
    batch_tasks_max: int = 4096
    queue_batches: int = 2
    stop_grace_s: float = 2.0
    busy_retry_s: float = 0.5
    preempt_s: float = 0.5
    reserve_s: float = 2.0
    limit_s: float = 2.0
    relief_s: float = 10.0
    report_s: float = 0.05
    view_s: float = 0.1
    jobs_kept_max: int = 1_000
    assign_bytes_max: int = 1 << 20
    recount_s: float = 5.0
    unanswered_s: float = 15.0
    idle_job_s: float = 60.0
    orphan_s: float = 120.0
    unheard_bytes_max: int = 64 << 20
    hold_s: float = 0.25
    gather_s: float = 0.3
    backup_s: float = 1.0
    backups_max: int = 4
    input_losses_max: int = 10
    ledger_bytes_max: int = 1 << 30
    facts_linger_s: float = 0.02
    jobs_fenced_max: int = 10_000
    outbox_messages_max: int = 1_000


class ElectionConfig(_Checked, frozen=True, kw_only=True):
    """See `p2premap.election.core`."""

    heartbeat_s: float = 0.25
    missed_s: float = 1.5
    stand_again_s: float = 0.5
    stagger_s: float = 0.15
    decide_wait_s: float = 1.0
    create_wait_s: float = 1.0
    replace_s: float = 4.0
    fork_s: float = 8.0
    boot_wait_s: float = 1.0
    resend_s: float = 0.5
    batch_bytes_max: int = 1 << 20
    concluded_max: int = 1_000


class OwnerLimits(_Checked, frozen=True, kw_only=True):
    """What a machine's owner keeps for other things; see `p2premap.tasks.allowance`.

    Args:
        load_max: the part of all CPUs that may be in use, by this node and by others together; 0: no limit.
        memory_free_bytes_min: memory that shall stay free.
        only_when_idle: work only while nobody else uses the machine.
        not_on_battery: work only while it does not run from its battery.
    """

    load_max: float = 0.0
    memory_free_bytes_min: int = 0
    only_when_idle: bool = False
    not_on_battery: bool = False


class TransportConfig(_Checked, frozen=True, kw_only=True):
    """See `p2premap.node.transport`."""

    port_first: int = 7321
    ports_tried: int = 32
    hello_s: float = 3.0
    dial_s: float = 3.0
    outbox_frames_max: int = 10_000
    outbox_bytes_max: int = 64 << 20
    connections_max: int = 4_096
    strangers_max: int = 128
    link_silent_s: float = 30.0
    senders_max: int = 16_384
    salt_idle_s: float = 5.0


class DiscoveryConfig(_Checked, frozen=True, kw_only=True):
    """See `p2premap.node.discovery`, `p2premap.node.neighbours`, `p2premap.node.joins` and `p2premap.node.doctor`."""

    hint_again_s: float = 15.0
    interfaces_settle_s: float = 0.2
    interfaces_poll_s: float = 5.0
    mdns_retry_s: float = 2.0
    mdns_retry_max_s: float = 60.0
    withdraw_s: float = 1.0
    found_max: int = 4_096
    foreign_max: int = 64
    addresses_max: int = 16
    join_retry_s: float = 0.5
    join_retry_max_s: float = 30.0
    neighbours_max: int = 16
    doctor_probe_s: float = 1.0
    doctor_peer_s: float = 3.0
    doctor_peers_max: int = 8


class NodeConfig(Event, frozen=True, kw_only=True):
    """One node.

    Args:
        name: for people; "" means the host's name.
        port: 0 means the default and the next free ones.
        slots: worker processes; 0 means one a CPU.
        joins: addresses typed with ``--join`` ("host:port").
        open_name: the NAME of ``--open NAME``; "" means a secret cluster.
        tags: for placement.
        limits: what the machine's owner keeps for other things.
        refused_actions: names of actions that do not run here.
        keep_bytes_max: of results and inputs of jobs, on this node's disk (`p2premap.node.quota`); 0: no limit.
        http: HTTP is served from the start on (`p2premap.node.webdoor`); else once somebody asks for it.
        http_lan: then for other machines, too.
        http_port: for it; this and the next ones are tried.
    """

    name: str = ""
    port: int = 0
    slots: int = 0
    joins: tuple[str, ...] = ()
    open_name: str = ""
    tags: tuple[str, ...] = ()
    limits: OwnerLimits = OwnerLimits()
    refused_actions: tuple[str, ...] = ()
    keep_bytes_max: int = 0
    http: bool = False
    http_lan: bool = False
    http_port: int = 8321
    gossip: GossipConfig = GossipConfig()
    tasks: TasksConfig = TasksConfig()
    election: ElectionConfig = ElectionConfig()
    transport: TransportConfig = TransportConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
