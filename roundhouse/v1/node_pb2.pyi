from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import condition_pb2 as _condition_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_READY: _ClassVar[NodeState]
    NODE_STATE_UNKNOWN: _ClassVar[NodeState]
    NODE_STATE_LOST: _ClassVar[NodeState]
    NODE_STATE_FOREIGN: _ClassVar[NodeState]

class GpuLinkKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_LINK_KIND_UNSPECIFIED: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_NVLINK: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_BOARD: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_PCIE_SWITCH: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_HOST_BRIDGE: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_NUMA_NODE: _ClassVar[GpuLinkKind]
    GPU_LINK_KIND_SYSTEM: _ClassVar[GpuLinkKind]

class GpuThrottleReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_THROTTLE_REASON_UNSPECIFIED: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_POWER_CAP: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_POWER_BRAKE: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_SOFTWARE_THERMAL: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_HARDWARE_THERMAL: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_HARDWARE_SLOWDOWN: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_USER_CLOCKS: _ClassVar[GpuThrottleReason]
    GPU_THROTTLE_REASON_SYNC_BOOST: _ClassVar[GpuThrottleReason]

class GpuMigMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_MIG_MODE_UNSPECIFIED: _ClassVar[GpuMigMode]
    GPU_MIG_MODE_DISABLED: _ClassVar[GpuMigMode]
    GPU_MIG_MODE_ENABLED: _ClassVar[GpuMigMode]

class GpuStateReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_STATE_REASON_UNSPECIFIED: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_OFF_BUS: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_MISSING: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_DRIVER_GONE: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_DRIVER_HANGS: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_DRIVER_ERROR: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_RESET_REQUIRED: _ClassVar[GpuStateReason]
    GPU_STATE_REASON_MIG_ENABLED: _ClassVar[GpuStateReason]

class GpuState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_STATE_UNSPECIFIED: _ClassVar[GpuState]
    GPU_STATE_OK: _ClassVar[GpuState]
    GPU_STATE_FAILED: _ClassVar[GpuState]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_READY: NodeState
NODE_STATE_UNKNOWN: NodeState
NODE_STATE_LOST: NodeState
NODE_STATE_FOREIGN: NodeState
GPU_LINK_KIND_UNSPECIFIED: GpuLinkKind
GPU_LINK_KIND_NVLINK: GpuLinkKind
GPU_LINK_KIND_BOARD: GpuLinkKind
GPU_LINK_KIND_PCIE_SWITCH: GpuLinkKind
GPU_LINK_KIND_HOST_BRIDGE: GpuLinkKind
GPU_LINK_KIND_NUMA_NODE: GpuLinkKind
GPU_LINK_KIND_SYSTEM: GpuLinkKind
GPU_THROTTLE_REASON_UNSPECIFIED: GpuThrottleReason
GPU_THROTTLE_REASON_POWER_CAP: GpuThrottleReason
GPU_THROTTLE_REASON_POWER_BRAKE: GpuThrottleReason
GPU_THROTTLE_REASON_SOFTWARE_THERMAL: GpuThrottleReason
GPU_THROTTLE_REASON_HARDWARE_THERMAL: GpuThrottleReason
GPU_THROTTLE_REASON_HARDWARE_SLOWDOWN: GpuThrottleReason
GPU_THROTTLE_REASON_USER_CLOCKS: GpuThrottleReason
GPU_THROTTLE_REASON_SYNC_BOOST: GpuThrottleReason
GPU_MIG_MODE_UNSPECIFIED: GpuMigMode
GPU_MIG_MODE_DISABLED: GpuMigMode
GPU_MIG_MODE_ENABLED: GpuMigMode
GPU_STATE_REASON_UNSPECIFIED: GpuStateReason
GPU_STATE_REASON_OFF_BUS: GpuStateReason
GPU_STATE_REASON_MISSING: GpuStateReason
GPU_STATE_REASON_DRIVER_GONE: GpuStateReason
GPU_STATE_REASON_DRIVER_HANGS: GpuStateReason
GPU_STATE_REASON_DRIVER_ERROR: GpuStateReason
GPU_STATE_REASON_RESET_REQUIRED: GpuStateReason
GPU_STATE_REASON_MIG_ENABLED: GpuStateReason
GPU_STATE_UNSPECIFIED: GpuState
GPU_STATE_OK: GpuState
GPU_STATE_FAILED: GpuState

class Node(_message.Message):
    __slots__ = ("name", "uid", "state", "state_time", "report_time", "hostname", "agent_version", "labels", "annotations", "gpus", "host", "replicas", "conditions", "taints", "driver_version", "is_cordoned", "drain")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_CORDONED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    state: NodeState
    state_time: _timestamp_pb2.Timestamp
    report_time: _timestamp_pb2.Timestamp
    hostname: str
    agent_version: str
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    host: Host
    replicas: _containers.RepeatedScalarFieldContainer[str]
    conditions: _containers.RepeatedCompositeFieldContainer[_condition_pb2.Condition]
    taints: _containers.RepeatedCompositeFieldContainer[Taint]
    driver_version: str
    is_cordoned: bool
    drain: NodeDrain
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., report_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., hostname: _Optional[str] = ..., agent_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., host: _Optional[_Union[Host, _Mapping]] = ..., replicas: _Optional[_Iterable[str]] = ..., conditions: _Optional[_Iterable[_Union[_condition_pb2.Condition, _Mapping]]] = ..., taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., driver_version: _Optional[str] = ..., is_cordoned: bool = ..., drain: _Optional[_Union[NodeDrain, _Mapping]] = ...) -> None: ...

class NodeDrain(_message.Message):
    __slots__ = ("grace", "allow_unserved", "request_time")
    GRACE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UNSERVED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    grace: _duration_pb2.Duration
    allow_unserved: bool
    request_time: _timestamp_pb2.Timestamp
    def __init__(self, grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., allow_unserved: bool = ..., request_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Taint(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("uuid", "index", "product_name", "is_simulated", "state", "state_message", "total_memory_bytes", "used_memory_bytes", "free_memory_bytes", "reserved_memory_bytes", "foreign_memory_bytes", "available_memory_bytes", "utilization_fraction", "last_utilization_fraction", "temperature_celsius", "power_watts", "sample_time", "replicas", "memory_utilization_fraction", "last_memory_utilization_fraction", "processes", "omitted_process_count", "driver_memory_bytes", "sm_clock_mhz", "max_sm_clock_mhz", "memory_clock_mhz", "throttle_reasons", "power_limit_watts", "ecc", "mig_mode", "links", "nvlink_island", "state_reason", "state_time")
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_NAME_FIELD_NUMBER: _ClassVar[int]
    IS_SIMULATED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    LAST_UTILIZATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_UTILIZATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    LAST_MEMORY_UTILIZATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    OMITTED_PROCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRIVER_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SM_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    MAX_SM_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_REASONS_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_WATTS_FIELD_NUMBER: _ClassVar[int]
    ECC_FIELD_NUMBER: _ClassVar[int]
    MIG_MODE_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    NVLINK_ISLAND_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    index: int
    product_name: str
    is_simulated: bool
    state: GpuState
    state_message: str
    total_memory_bytes: int
    used_memory_bytes: int
    free_memory_bytes: int
    reserved_memory_bytes: int
    foreign_memory_bytes: int
    available_memory_bytes: int
    utilization_fraction: float
    last_utilization_fraction: float
    temperature_celsius: float
    power_watts: float
    sample_time: _timestamp_pb2.Timestamp
    replicas: _containers.RepeatedScalarFieldContainer[str]
    memory_utilization_fraction: float
    last_memory_utilization_fraction: float
    processes: _containers.RepeatedCompositeFieldContainer[GpuProcess]
    omitted_process_count: int
    driver_memory_bytes: int
    sm_clock_mhz: int
    max_sm_clock_mhz: int
    memory_clock_mhz: int
    throttle_reasons: _containers.RepeatedScalarFieldContainer[GpuThrottleReason]
    power_limit_watts: float
    ecc: GpuEcc
    mig_mode: GpuMigMode
    links: _containers.RepeatedCompositeFieldContainer[GpuLink]
    nvlink_island: int
    state_reason: GpuStateReason
    state_time: _timestamp_pb2.Timestamp
    def __init__(self, uuid: _Optional[str] = ..., index: _Optional[int] = ..., product_name: _Optional[str] = ..., is_simulated: bool = ..., state: _Optional[_Union[GpuState, str]] = ..., state_message: _Optional[str] = ..., total_memory_bytes: _Optional[int] = ..., used_memory_bytes: _Optional[int] = ..., free_memory_bytes: _Optional[int] = ..., reserved_memory_bytes: _Optional[int] = ..., foreign_memory_bytes: _Optional[int] = ..., available_memory_bytes: _Optional[int] = ..., utilization_fraction: _Optional[float] = ..., last_utilization_fraction: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., sample_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., replicas: _Optional[_Iterable[str]] = ..., memory_utilization_fraction: _Optional[float] = ..., last_memory_utilization_fraction: _Optional[float] = ..., processes: _Optional[_Iterable[_Union[GpuProcess, _Mapping]]] = ..., omitted_process_count: _Optional[int] = ..., driver_memory_bytes: _Optional[int] = ..., sm_clock_mhz: _Optional[int] = ..., max_sm_clock_mhz: _Optional[int] = ..., memory_clock_mhz: _Optional[int] = ..., throttle_reasons: _Optional[_Iterable[_Union[GpuThrottleReason, str]]] = ..., power_limit_watts: _Optional[float] = ..., ecc: _Optional[_Union[GpuEcc, _Mapping]] = ..., mig_mode: _Optional[_Union[GpuMigMode, str]] = ..., links: _Optional[_Iterable[_Union[GpuLink, _Mapping]]] = ..., nvlink_island: _Optional[int] = ..., state_reason: _Optional[_Union[GpuStateReason, str]] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GpuProcess(_message.Message):
    __slots__ = ("pid", "name", "replica", "used_memory_bytes")
    PID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    USED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    pid: int
    name: str
    replica: str
    used_memory_bytes: int
    def __init__(self, pid: _Optional[int] = ..., name: _Optional[str] = ..., replica: _Optional[str] = ..., used_memory_bytes: _Optional[int] = ...) -> None: ...

class GpuEcc(_message.Message):
    __slots__ = ("is_enabled", "corrected_count", "uncorrected_count")
    IS_ENABLED_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    is_enabled: bool
    corrected_count: int
    uncorrected_count: int
    def __init__(self, is_enabled: bool = ..., corrected_count: _Optional[int] = ..., uncorrected_count: _Optional[int] = ...) -> None: ...

class GpuLink(_message.Message):
    __slots__ = ("peer_index", "kind")
    PEER_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    peer_index: int
    kind: GpuLinkKind
    def __init__(self, peer_index: _Optional[int] = ..., kind: _Optional[_Union[GpuLinkKind, str]] = ...) -> None: ...

class Host(_message.Message):
    __slots__ = ("cpu_count", "cpu_fraction", "total_memory_bytes", "available_memory_bytes", "reserved_memory_bytes", "foreign_memory_bytes", "placeable_memory_bytes", "last_cpu_fraction", "disks")
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    CPU_FRACTION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACEABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_CPU_FRACTION_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    cpu_count: int
    cpu_fraction: float
    total_memory_bytes: int
    available_memory_bytes: int
    reserved_memory_bytes: int
    foreign_memory_bytes: int
    placeable_memory_bytes: int
    last_cpu_fraction: float
    disks: _containers.RepeatedCompositeFieldContainer[Disk]
    def __init__(self, cpu_count: _Optional[int] = ..., cpu_fraction: _Optional[float] = ..., total_memory_bytes: _Optional[int] = ..., available_memory_bytes: _Optional[int] = ..., reserved_memory_bytes: _Optional[int] = ..., foreign_memory_bytes: _Optional[int] = ..., placeable_memory_bytes: _Optional[int] = ..., last_cpu_fraction: _Optional[float] = ..., disks: _Optional[_Iterable[_Union[Disk, _Mapping]]] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("path", "total_bytes", "available_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    total_bytes: int
    available_bytes: int
    def __init__(self, path: _Optional[str] = ..., total_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ...) -> None: ...
