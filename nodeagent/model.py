"""The values that the node agent decides with. No wire, no clock, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

TERM_GRACE_S = 5.0  # after a drain there is nothing left to do but to exit
SILENCE_S = 10.0  # beyond the period: status comes from a thread of its own, whatever the model does
# Nothing that a step does keeps that thread from answering for so long: the process is stopped, or caught in a call
# that keeps the interpreter to itself, and its requests wait for nothing.
HUNG_S = 60.0
TRIM_PERIOD_S = 10.0
# What the agent before this one was told may be long ago. The control plane gets this long to say what is wanted now,
# before an engine is started; what runs is not touched meanwhile.
ASK_FIRST_S = 5.0


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
    hands_over: bool = False  # STOPPED: what runs beyond the grace goes on at other engines


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
    hands_over: bool = False  # then: what runs beyond it goes on at other engines
    has_remains: bool = False  # FAILED, but not all of its processes or of its GPU memory are gone yet


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine of ours, as the GPUs and the host see it."""

    replica_uid: str
    gpu_uuids: tuple[str, ...]
    reserved_bytes: int
    pid: int = 0  # leader of its session; 0 while there is no process
    is_loaded: bool = False  # READY or DRAINING, so its memory is in use
    busy_fraction: float = 0.0
    replica: str = ""  # its name


class Failure(enum.Enum):
    """Why a GPU cannot be used; named like the reasons of the contract."""

    OFF_BUS = enum.auto()  # the driver names it and cannot reach it
    MISSING = enum.auto()  # the driver does not name it any more
    DRIVER_GONE = enum.auto()  # not loaded, being exchanged, or other than its library
    DRIVER_HANGS = enum.auto()
    DRIVER_ERROR = enum.auto()
    RESET_REQUIRED = enum.auto()
    MIG_ENABLED = enum.auto()


class Throttle(enum.Enum):
    """Why clocks are lower than they could be; named like the reasons of the contract."""

    POWER_CAP = enum.auto()
    POWER_BRAKE = enum.auto()
    SOFTWARE_THERMAL = enum.auto()
    HARDWARE_THERMAL = enum.auto()
    HARDWARE_SLOWDOWN = enum.auto()
    USER_CLOCKS = enum.auto()
    SYNC_BOOST = enum.auto()


class LinkKind(enum.Enum):
    """The shortest way between two GPUs; named like the kinds of the contract."""

    NVLINK = enum.auto()
    BOARD = enum.auto()
    PCIE_SWITCH = enum.auto()
    HOST_BRIDGE = enum.auto()
    NUMA_NODE = enum.auto()
    SYSTEM = enum.auto()


@dataclass(frozen=True, slots=True)
class Link:
    """The shortest way from a GPU to another one."""

    peer_index: int
    kind: LinkKind


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    name: str  # of its program, without arguments; empty if it cannot be learned
    replica: str  # empty: not ours
    used_bytes: int | None  # None: the driver does not tell


@dataclass(frozen=True, slots=True)
class Ecc:
    """How the memory of a GPU fares, since the driver was loaded."""

    is_enabled: bool
    corrected_count: int = 0
    uncorrected_count: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU says of itself at one time. None: it does not tell."""

    uuid: str
    index: int
    product_name: str
    is_simulated: bool
    total_bytes: int
    used_bytes: int = 0
    free_bytes: int = 0
    foreign_bytes: int = 0  # of processes that are not ours, and what the driver keeps
    driver_bytes: int = 0  # what the driver keeps; 0 if it does not tell
    measured_bytes: Mapping[str, int] = field(default_factory=dict)  # of ours, by replica uid
    processes: tuple[GpuProcess, ...] = ()  # the largest first
    omitted_process_count: int = 0
    utilization_fraction: float | None = None
    mean_utilization_fraction: float | None = None  # averaged by the sampler
    memory_utilization_fraction: float | None = None  # of the time in which memory was read or written
    mean_memory_utilization_fraction: float | None = None  # averaged by the sampler
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttles: tuple[Throttle, ...] = ()
    ecc: Ecc | None = None
    is_mig_enabled: bool | None = None
    links: tuple[Link, ...] = ()  # to every other GPU
    nvlink_island: int | None = None  # GPUs with the same number reach one another over NVLink
    failure: str = ""  # why it cannot be used, in the words of the driver
    failure_kind: Failure = Failure.DRIVER_ERROR  # the same for programs, if there is a failure
    state_time_s: float = 0.0  # since 1970, when it became usable, or unusable for this reason; kept by the sampler

    def failed(self, kind: Failure, words: str) -> Reading:
        """Returns what is still known of the GPU when it cannot be used."""
        return replace(self, failure=words, failure_kind=kind)


def unknown_gpu(index: int, kind: Failure, words: str) -> Reading:
    """Returns what is reported of a GPU that cannot even say its name: a node with a failed GPU is no CPU node."""
    return Reading(f"GPU-unknown-{index}", index, "", is_simulated=False, total_bytes=0).failed(kind, words)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system of the host, by a directory on it."""

    path: str
    total_bytes: int
    available_bytes: int  # to the agent


@dataclass(frozen=True, slots=True)
class HostReading:
    """Processors, memory and disks of the host at one time."""

    cpu_count: int
    cpu_fraction: float
    total_bytes: int
    available_bytes: int
    mean_cpu_fraction: float | None = None  # averaged by the sampler
    measured_bytes: Mapping[str, int] = field(default_factory=dict)  # of engines that compute here, by replica uid
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory of one engine: on its GPUs the largest over them, else in the memory of the host."""

    used_bytes: int
    peak_bytes: int  # the most that was used in this life of the engine


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest of everything that is measured. Times are since 1970."""

    time_s: float
    host: HostReading
    gpus: tuple[Reading, ...]
    gpu_time_s: float  # when `gpus` was asked for; older than `time_s` while the driver hangs
    driver_version: str = ""  # empty: there is none
    engines: Mapping[str, Measured] = field(default_factory=dict)  # by replica uid


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
    ask_first_s: float = ASK_FIRST_S  # before what an earlier agent was told makes an engine start
