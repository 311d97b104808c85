from google.protobuf import duration_pb2 as _duration_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EngineState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_STATE_UNSPECIFIED: _ClassVar[EngineState]
    ENGINE_STATE_LOADING: _ClassVar[EngineState]
    ENGINE_STATE_SERVING: _ClassVar[EngineState]
    ENGINE_STATE_DRAINING: _ClassVar[EngineState]
ENGINE_STATE_UNSPECIFIED: EngineState
ENGINE_STATE_LOADING: EngineState
ENGINE_STATE_SERVING: EngineState
ENGINE_STATE_DRAINING: EngineState

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("engine_uuid", "replica", "replica_uid", "pid", "deployment_generation", "status", "fingerprint", "model", "package_versions")
    class PackageVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    engine_uuid: str
    replica: str
    replica_uid: str
    pid: int
    deployment_generation: int
    status: EngineStatus
    fingerprint: str
    model: ModelDescription
    package_versions: _containers.ScalarMap[str, str]
    def __init__(self, engine_uuid: _Optional[str] = ..., replica: _Optional[str] = ..., replica_uid: _Optional[str] = ..., pid: _Optional[int] = ..., deployment_generation: _Optional[int] = ..., status: _Optional[_Union[EngineStatus, _Mapping]] = ..., fingerprint: _Optional[str] = ..., model: _Optional[_Union[ModelDescription, _Mapping]] = ..., package_versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("model_type", "parameter_count", "dtype", "device", "max_model_len", "vocabulary_size", "block_size", "total_block_count", "has_chat_template", "numerics", "quantization", "is_compiled", "has_prefix_caching", "speculation_method", "has_constraints")
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    HAS_CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    IS_COMPILED_FIELD_NUMBER: _ClassVar[int]
    HAS_PREFIX_CACHING_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_METHOD_FIELD_NUMBER: _ClassVar[int]
    HAS_CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    model_type: str
    parameter_count: int
    dtype: str
    device: str
    max_model_len: int
    vocabulary_size: int
    block_size: int
    total_block_count: int
    has_chat_template: bool
    numerics: str
    quantization: str
    is_compiled: bool
    has_prefix_caching: bool
    speculation_method: _deployment_pb2.SpeculationMethod
    has_constraints: bool
    def __init__(self, model_type: _Optional[str] = ..., parameter_count: _Optional[int] = ..., dtype: _Optional[str] = ..., device: _Optional[str] = ..., max_model_len: _Optional[int] = ..., vocabulary_size: _Optional[int] = ..., block_size: _Optional[int] = ..., total_block_count: _Optional[int] = ..., has_chat_template: bool = ..., numerics: _Optional[str] = ..., quantization: _Optional[str] = ..., is_compiled: bool = ..., has_prefix_caching: bool = ..., speculation_method: _Optional[_Union[_deployment_pb2.SpeculationMethod, str]] = ..., has_constraints: bool = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("period",)
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    period: _duration_pb2.Duration
    def __init__(self, period: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("statuses",)
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedCompositeFieldContainer[EngineStatus]
    def __init__(self, statuses: _Optional[_Iterable[_Union[EngineStatus, _Mapping]]] = ...) -> None: ...

class EngineStatus(_message.Message):
    __slots__ = ("state", "message", "load", "progress")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    state: EngineState
    message: str
    load: _deployment_pb2.EngineLoad
    progress: _deployment_pb2.LaunchProgress
    def __init__(self, state: _Optional[_Union[EngineState, str]] = ..., message: _Optional[str] = ..., load: _Optional[_Union[_deployment_pb2.EngineLoad, _Mapping]] = ..., progress: _Optional[_Union[_deployment_pb2.LaunchProgress, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace", "hands_over")
    GRACE_FIELD_NUMBER: _ClassVar[int]
    HANDS_OVER_FIELD_NUMBER: _ClassVar[int]
    grace: _duration_pb2.Duration
    hands_over: bool
    def __init__(self, grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., hands_over: bool = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("finished_count", "cancelled_count", "handed_over_count")
    FINISHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_COUNT_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_COUNT_FIELD_NUMBER: _ClassVar[int]
    finished_count: int
    cancelled_count: int
    handed_over_count: int
    def __init__(self, finished_count: _Optional[int] = ..., cancelled_count: _Optional[int] = ..., handed_over_count: _Optional[int] = ...) -> None: ...
