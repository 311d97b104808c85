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
GPU_STATE_UNSPECIFIED: GpuState
GPU_STATE_OK: GpuState
GPU_STATE_FAILED: GpuState

class Node(_message.Message):
    __slots__ = ("name", "uid", "state", "state_time", "report_time", "hostname", "agent_version", "labels", "annotations", "gpus", "host", "replicas", "conditions")
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
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., report_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., hostname: _Optional[str] = ..., agent_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., host: _Optional[_Union[Host, _Mapping]] = ..., replicas: _Optional[_Iterable[str]] = ..., conditions: _Optional[_Iterable[_Union[_condition_pb2.Condition, _Mapping]]] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("uuid", "index", "product_name", "is_simulated", "state", "state_message", "total_memory_bytes", "used_memory_bytes", "free_memory_bytes", "reserved_memory_bytes", "foreign_memory_bytes", "available_memory_bytes", "utilization_fraction", "last_utilization_fraction", "temperature_celsius", "power_watts", "sample_time", "replicas")
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
    def __init__(self, uuid: _Optional[str] = ..., index: _Optional[int] = ..., product_name: _Optional[str] = ..., is_simulated: bool = ..., state: _Optional[_Union[GpuState, str]] = ..., state_message: _Optional[str] = ..., total_memory_bytes: _Optional[int] = ..., used_memory_bytes: _Optional[int] = ..., free_memory_bytes: _Optional[int] = ..., reserved_memory_bytes: _Optional[int] = ..., foreign_memory_bytes: _Optional[int] = ..., available_memory_bytes: _Optional[int] = ..., utilization_fraction: _Optional[float] = ..., last_utilization_fraction: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., sample_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., replicas: _Optional[_Iterable[str]] = ...) -> None: ...

class Host(_message.Message):
    __slots__ = ("cpu_count", "cpu_fraction", "total_memory_bytes", "available_memory_bytes", "reserved_memory_bytes")
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    CPU_FRACTION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_count: int
    cpu_fraction: float
    total_memory_bytes: int
    available_memory_bytes: int
    reserved_memory_bytes: int
    def __init__(self, cpu_count: _Optional[int] = ..., cpu_fraction: _Optional[float] = ..., total_memory_bytes: _Optional[int] = ..., available_memory_bytes: _Optional[int] = ..., reserved_memory_bytes: _Optional[int] = ...) -> None: ...
