from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.internal.v1 import engine_spec_pb2 as _engine_spec_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from roundhouse.v1 import log_pb2 as _log_pb2
from roundhouse.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DesiredState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESIRED_STATE_UNSPECIFIED: _ClassVar[DesiredState]
    DESIRED_STATE_RUNNING: _ClassVar[DesiredState]
    DESIRED_STATE_STOPPED: _ClassVar[DesiredState]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_OK: _ClassVar[ModelState]
    MODEL_STATE_NOT_FOUND: _ClassVar[ModelState]
    MODEL_STATE_BROKEN: _ClassVar[ModelState]
    MODEL_STATE_AT_HUB: _ClassVar[ModelState]
DESIRED_STATE_UNSPECIFIED: DesiredState
DESIRED_STATE_RUNNING: DesiredState
DESIRED_STATE_STOPPED: DesiredState
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_OK: ModelState
MODEL_STATE_NOT_FOUND: ModelState
MODEL_STATE_BROKEN: ModelState
MODEL_STATE_AT_HUB: ModelState

class JoinRequest(_message.Message):
    __slots__ = ("protocol_version", "lowest_protocol_version", "capabilities", "node_id", "node_uid", "agent_uid", "boot_id", "machine_id", "applied_order", "refusals", "node", "engines", "models", "cached_models")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOWEST_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    AGENT_UID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_ORDER_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CACHED_MODELS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    lowest_protocol_version: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    node_id: str
    node_uid: str
    agent_uid: str
    boot_id: str
    machine_id: str
    applied_order: Order
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    node: NodeFacts
    engines: _containers.RepeatedCompositeFieldContainer[EngineReport]
    models: _containers.RepeatedCompositeFieldContainer[ModelFacts]
    cached_models: _containers.RepeatedCompositeFieldContainer[CachedModelFacts]
    def __init__(self, protocol_version: _Optional[int] = ..., lowest_protocol_version: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., node_id: _Optional[str] = ..., node_uid: _Optional[str] = ..., agent_uid: _Optional[str] = ..., boot_id: _Optional[str] = ..., machine_id: _Optional[str] = ..., applied_order: _Optional[_Union[Order, _Mapping]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., node: _Optional[_Union[NodeFacts, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineReport, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelFacts, _Mapping]]] = ..., cached_models: _Optional[_Iterable[_Union[CachedModelFacts, _Mapping]]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("protocol_version", "order", "engines", "model_probes", "redirect_address", "cached_model_deletions", "hub_probes", "log_requests")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    MODEL_PROBES_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CACHED_MODEL_DELETIONS_FIELD_NUMBER: _ClassVar[int]
    HUB_PROBES_FIELD_NUMBER: _ClassVar[int]
    LOG_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    order: Order
    engines: _containers.RepeatedCompositeFieldContainer[EngineAssignment]
    model_probes: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.ModelSource]
    redirect_address: str
    cached_model_deletions: _containers.RepeatedCompositeFieldContainer[CachedModelKey]
    hub_probes: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.ModelSource]
    log_requests: _containers.RepeatedCompositeFieldContainer[LogRequest]
    def __init__(self, protocol_version: _Optional[int] = ..., order: _Optional[_Union[Order, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineAssignment, _Mapping]]] = ..., model_probes: _Optional[_Iterable[_Union[_deployment_pb2.ModelSource, _Mapping]]] = ..., redirect_address: _Optional[str] = ..., cached_model_deletions: _Optional[_Iterable[_Union[CachedModelKey, _Mapping]]] = ..., hub_probes: _Optional[_Iterable[_Union[_deployment_pb2.ModelSource, _Mapping]]] = ..., log_requests: _Optional[_Iterable[_Union[LogRequest, _Mapping]]] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("request_id", "replica_uid", "tail_line_count", "follow", "since_time", "previous_life", "stream")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LIFE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    replica_uid: str
    tail_line_count: int
    follow: bool
    since_time: _timestamp_pb2.Timestamp
    previous_life: bool
    stream: _log_pb2.LogStream
    def __init__(self, request_id: _Optional[str] = ..., replica_uid: _Optional[str] = ..., tail_line_count: _Optional[int] = ..., follow: bool = ..., since_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., previous_life: bool = ..., stream: _Optional[_Union[_log_pb2.LogStream, str]] = ...) -> None: ...

class SendLogsRequest(_message.Message):
    __slots__ = ("request_id", "lines", "refusal", "is_last")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lines: _containers.RepeatedCompositeFieldContainer[_log_pb2.LogLine]
    refusal: str
    is_last: bool
    def __init__(self, request_id: _Optional[str] = ..., lines: _Optional[_Iterable[_Union[_log_pb2.LogLine, _Mapping]]] = ..., refusal: _Optional[str] = ..., is_last: bool = ...) -> None: ...

class SendLogsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CachedModelKey(_message.Message):
    __slots__ = ("repository", "commit")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    repository: str
    commit: str
    def __init__(self, repository: _Optional[str] = ..., commit: _Optional[str] = ...) -> None: ...

class CachedModelFacts(_message.Message):
    __slots__ = ("key", "references", "size_bytes", "file_count", "last_used_time", "deletion_message")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETION_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    key: CachedModelKey
    references: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    file_count: int
    last_used_time: _timestamp_pb2.Timestamp
    deletion_message: str
    def __init__(self, key: _Optional[_Union[CachedModelKey, _Mapping]] = ..., references: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., file_count: _Optional[int] = ..., last_used_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., deletion_message: _Optional[str] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("cluster_id", "term", "generation")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    term: int
    generation: int
    def __init__(self, cluster_id: _Optional[str] = ..., term: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("replica_uid", "gpu_uuids", "message", "available_memory_bytes", "not_before_time", "is_node_wide")
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_TIME_FIELD_NUMBER: _ClassVar[int]
    IS_NODE_WIDE_FIELD_NUMBER: _ClassVar[int]
    replica_uid: str
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    message: str
    available_memory_bytes: int
    not_before_time: _timestamp_pb2.Timestamp
    is_node_wide: bool
    def __init__(self, replica_uid: _Optional[str] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ..., available_memory_bytes: _Optional[int] = ..., not_before_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., is_node_wide: bool = ...) -> None: ...

class NodeFacts(_message.Message):
    __slots__ = ("hostname", "agent_version", "labels", "gpus", "host", "sample_time", "taints", "driver_version")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    agent_version: str
    labels: _containers.ScalarMap[str, str]
    gpus: _containers.RepeatedCompositeFieldContainer[_node_pb2.Gpu]
    host: _node_pb2.Host
    sample_time: _timestamp_pb2.Timestamp
    taints: _containers.RepeatedCompositeFieldContainer[_node_pb2.Taint]
    driver_version: str
    def __init__(self, hostname: _Optional[str] = ..., agent_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., gpus: _Optional[_Iterable[_Union[_node_pb2.Gpu, _Mapping]]] = ..., host: _Optional[_Union[_node_pb2.Host, _Mapping]] = ..., sample_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., taints: _Optional[_Iterable[_Union[_node_pb2.Taint, _Mapping]]] = ..., driver_version: _Optional[str] = ...) -> None: ...

class EngineAssignment(_message.Message):
    __slots__ = ("replica", "replica_uid", "placement_epoch", "deployment_generation", "desired_state", "spec", "gpu_uuids", "reserved_memory_bytes", "drain_grace", "hands_over")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    HANDS_OVER_FIELD_NUMBER: _ClassVar[int]
    replica: str
    replica_uid: str
    placement_epoch: int
    deployment_generation: int
    desired_state: DesiredState
    spec: _engine_spec_pb2.EngineSpec
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    reserved_memory_bytes: int
    drain_grace: _duration_pb2.Duration
    hands_over: bool
    def __init__(self, replica: _Optional[str] = ..., replica_uid: _Optional[str] = ..., placement_epoch: _Optional[int] = ..., deployment_generation: _Optional[int] = ..., desired_state: _Optional[_Union[DesiredState, str]] = ..., spec: _Optional[_Union[_engine_spec_pb2.EngineSpec, _Mapping]] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., reserved_memory_bytes: _Optional[int] = ..., drain_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., hands_over: bool = ...) -> None: ...

class EngineReport(_message.Message):
    __slots__ = ("replica", "replica_uid", "placement_epoch", "deployment_generation", "state", "state_time", "message", "engine_uuid", "engine_key", "address", "pid", "restart_count", "last_exit", "next_start_time", "gpu_uuids", "reserved_memory_bytes", "measured_memory_bytes", "load", "fingerprint", "is_orphan", "is_crash_loop", "peak_memory_bytes", "package_versions", "progress")
    class PackageVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_KEY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    NEXT_START_TIME_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    IS_ORPHAN_FIELD_NUMBER: _ClassVar[int]
    IS_CRASH_LOOP_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    replica: str
    replica_uid: str
    placement_epoch: int
    deployment_generation: int
    state: _deployment_pb2.ReplicaState
    state_time: _timestamp_pb2.Timestamp
    message: str
    engine_uuid: str
    engine_key: bytes
    address: str
    pid: int
    restart_count: int
    last_exit: _deployment_pb2.EngineExit
    next_start_time: _timestamp_pb2.Timestamp
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    reserved_memory_bytes: int
    measured_memory_bytes: int
    load: _deployment_pb2.EngineLoad
    fingerprint: str
    is_orphan: bool
    is_crash_loop: bool
    peak_memory_bytes: int
    package_versions: _containers.ScalarMap[str, str]
    progress: _deployment_pb2.LaunchProgress
    def __init__(self, replica: _Optional[str] = ..., replica_uid: _Optional[str] = ..., placement_epoch: _Optional[int] = ..., deployment_generation: _Optional[int] = ..., state: _Optional[_Union[_deployment_pb2.ReplicaState, str]] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., engine_uuid: _Optional[str] = ..., engine_key: _Optional[bytes] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ..., restart_count: _Optional[int] = ..., last_exit: _Optional[_Union[_deployment_pb2.EngineExit, _Mapping]] = ..., next_start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., reserved_memory_bytes: _Optional[int] = ..., measured_memory_bytes: _Optional[int] = ..., load: _Optional[_Union[_deployment_pb2.EngineLoad, _Mapping]] = ..., fingerprint: _Optional[str] = ..., is_orphan: bool = ..., is_crash_loop: bool = ..., peak_memory_bytes: _Optional[int] = ..., package_versions: _Optional[_Mapping[str, str]] = ..., progress: _Optional[_Union[_deployment_pb2.LaunchProgress, _Mapping]] = ...) -> None: ...

class ModelFacts(_message.Message):
    __slots__ = ("source", "state", "message", "model_type", "weight_bytes", "parameter_count", "dtype", "context_tokens", "kv_elements_per_token", "weight_bytes_by_dtype", "linear_parameter_count", "tied_parameter_count", "largest_tensor_parameter_count", "hidden_size", "intermediate_size", "query_size", "vocabulary_size", "layer_count", "quantization_method", "path", "missing_files", "is_from_hub", "commit", "fetch_bytes")
    class WeightBytesByDtypeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_ELEMENTS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_BY_DTYPE_FIELD_NUMBER: _ClassVar[int]
    LINEAR_PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIED_PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_TENSOR_PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATE_SIZE_FIELD_NUMBER: _ClassVar[int]
    QUERY_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MISSING_FILES_FIELD_NUMBER: _ClassVar[int]
    IS_FROM_HUB_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    FETCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    source: _deployment_pb2.ModelSource
    state: ModelState
    message: str
    model_type: str
    weight_bytes: int
    parameter_count: int
    dtype: str
    context_tokens: int
    kv_elements_per_token: int
    weight_bytes_by_dtype: _containers.ScalarMap[str, int]
    linear_parameter_count: int
    tied_parameter_count: int
    largest_tensor_parameter_count: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    vocabulary_size: int
    layer_count: int
    quantization_method: str
    path: str
    missing_files: _containers.RepeatedScalarFieldContainer[str]
    is_from_hub: bool
    commit: str
    fetch_bytes: int
    def __init__(self, source: _Optional[_Union[_deployment_pb2.ModelSource, _Mapping]] = ..., state: _Optional[_Union[ModelState, str]] = ..., message: _Optional[str] = ..., model_type: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., parameter_count: _Optional[int] = ..., dtype: _Optional[str] = ..., context_tokens: _Optional[int] = ..., kv_elements_per_token: _Optional[int] = ..., weight_bytes_by_dtype: _Optional[_Mapping[str, int]] = ..., linear_parameter_count: _Optional[int] = ..., tied_parameter_count: _Optional[int] = ..., largest_tensor_parameter_count: _Optional[int] = ..., hidden_size: _Optional[int] = ..., intermediate_size: _Optional[int] = ..., query_size: _Optional[int] = ..., vocabulary_size: _Optional[int] = ..., layer_count: _Optional[int] = ..., quantization_method: _Optional[str] = ..., path: _Optional[str] = ..., missing_files: _Optional[_Iterable[str]] = ..., is_from_hub: bool = ..., commit: _Optional[str] = ..., fetch_bytes: _Optional[int] = ...) -> None: ...
