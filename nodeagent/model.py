"""The values that the node agent decides with. No wire, no clock, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

TERM_GRACE_S = 5.0  # after a drain there is nothing left to do but to exit
SILENCE_S = 10.0  # beyond the period: status comes from a thread of its own, whatever the model does
# Nothing that a step does keeps that thread from answering for so long: the process is stopped, or caught in a call
# that keeps the interpreter to itself, and its requests wait for nothing.
HUNG_S = 60.0
TRIM_PERIOD_S = 10.0


class State(enum.Enum):
    """What a replica is doing on this node; named like the states of the contract."""

    PREPARING = enum.auto()
    STARTING = enum.auto()
    READY = enum.auto()
    DRAINING = enum.auto()
    STOPPED = enum.auto()
    FAILED = enum.auto()


class Desired(enum.Enum):
    """What the control plane wants of a replica."""

    RUNNING = enum.auto()
    STOPPED = enum.auto()


@dataclass(frozen=True, slots=True)
class Order:
    """The place of an assignment among all of a cluster, ordered by (term, generation)."""

    cluster_id: str
    term: int
    generation: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """One replica of an assignment. `spec` is the serialized specification of its engine, opaque to decisions."""

    replica: str
    replica_uid: str
    placement_epoch: int
    deployment_generation: int
    desired: Desired
    spec: bytes
    gpu_uuids: tuple[str, ...]  # empty: the processors
    reserved_bytes: int  # on each GPU, or in the memory of the host
    drain_grace_s: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """Every replica that this node should run or stop."""

    order: Order
    replicas: tuple[Assigned, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What this node has of a replica, as `plan` sees it. Times are of the monotonic clock."""

    replica_uid: str
    state: State
    gpu_uuids: tuple[str, ...]
    reserved_bytes: int
    next_start_s: float | None = None  # FAILED: not before this time
    orphan_since_s: float | None = None  # not in the assignment, since then
    stop_grace_s: float | None = None  # it is being stopped, or was, with this grace for running requests
    has_remains: bool = False  # FAILED, but not all of its processes or of its GPU memory are gone yet


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine of ours, as the GPUs see it."""

    replica_uid: str
    gpu_uuids: tuple[str, ...]
    reserved_bytes: int
    pid: int = 0  # leader of its session; 0 while there is no process
    is_loaded: bool = False  # READY or DRAINING, so its memory is in use
    busy_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU says of itself at one time."""

    uuid: str
    index: int
    product_name: str
    is_simulated: bool
    total_bytes: int
    used_bytes: int = 0
    free_bytes: int = 0
    foreign_bytes: int = 0  # of processes that are not ours
    measured_bytes: Mapping[str, int] = field(default_factory=dict)  # of ours, by replica uid
    utilization_fraction: float | None = None  # None: the GPU does not tell
    mean_utilization_fraction: float | None = None  # averaged by the sampler
    temperature_celsius: float | None = None
    power_watts: float | None = None
    failure: str = ""  # why it cannot be used, in the words of the driver


def unknown_gpu(index: int, failure: str) -> Reading:
    """Returns what is reported of a GPU that cannot even say its name: a node with a failed GPU is no CPU node."""
    return Reading(f"GPU-unknown-{index}", index, "", is_simulated=False, total_bytes=0, failure=failure)


@dataclass(frozen=True, slots=True)
class HostReading:
    """Processors and memory of the host at one time."""

    cpu_count: int
    cpu_fraction: float
    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest of everything that is measured. Times are since 1970."""

    time_s: float
    host: HostReading
    gpus: tuple[Reading, ...]
    gpu_time_s: float  # when `gpus` was asked for; older than `time_s` while the driver hangs


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Names a process for good: a pid is used again, a pid with its start time and boot is not."""

    pid: int
    start_ticks: int  # clock ticks since boot, field 22 of /proc/<pid>/stat
    boot_id: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Neither is set if that could not be learned."""

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one life of an engine that nobody asked for."""

    exit: Exit
    stderr_lines: tuple[str, ...]
    time_s: float  # since 1970, when it was noticed
    reason: str  # one line for people


@dataclass(frozen=True, slots=True)
class Timing:
    """How often an engine says how it is, and how long it may take over what, in seconds."""

    watch_period_s: float
    term_grace_s: float = TERM_GRACE_S
    silence_s: float = SILENCE_S  # beyond the period; then it is not READY any more
    hung_s: float = HUNG_S  # silent for so long, it is ended; longer while it loads
    trim_period_s: float = TRIM_PERIOD_S
