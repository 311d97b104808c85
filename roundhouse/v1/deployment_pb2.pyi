from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import condition_pb2 as _condition_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeploymentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPLOYMENT_STATE_UNSPECIFIED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_PENDING: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_STARTING: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_READY: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_DEGRADED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_FAILED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_DELETING: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_UNKNOWN: _ClassVar[DeploymentState]

class AntiAffinityScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANTI_AFFINITY_SCOPE_UNSPECIFIED: _ClassVar[AntiAffinityScope]
    ANTI_AFFINITY_SCOPE_NODE: _ClassVar[AntiAffinityScope]
    ANTI_AFFINITY_SCOPE_GPU: _ClassVar[AntiAffinityScope]

class SpeculationMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPECULATION_METHOD_UNSPECIFIED: _ClassVar[SpeculationMethod]
    SPECULATION_METHOD_OFF: _ClassVar[SpeculationMethod]
    SPECULATION_METHOD_NGRAM: _ClassVar[SpeculationMethod]
    SPECULATION_METHOD_DRAFT_MODEL: _ClassVar[SpeculationMethod]

class LaunchStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAUNCH_STAGE_UNSPECIFIED: _ClassVar[LaunchStage]
    LAUNCH_STAGE_LOCATING_MODEL: _ClassVar[LaunchStage]
    LAUNCH_STAGE_FETCHING_MODEL: _ClassVar[LaunchStage]
    LAUNCH_STAGE_BUILDING_ENVIRONMENT: _ClassVar[LaunchStage]
    LAUNCH_STAGE_STARTING_ENGINE: _ClassVar[LaunchStage]
    LAUNCH_STAGE_LOADING_WEIGHTS: _ClassVar[LaunchStage]
    LAUNCH_STAGE_WARMING_UP: _ClassVar[LaunchStage]
    LAUNCH_STAGE_HASHING_WEIGHTS: _ClassVar[LaunchStage]

class ReplicaState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_STATE_UNSPECIFIED: _ClassVar[ReplicaState]
    REPLICA_STATE_PENDING: _ClassVar[ReplicaState]
    REPLICA_STATE_PREPARING: _ClassVar[ReplicaState]
    REPLICA_STATE_STARTING: _ClassVar[ReplicaState]
    REPLICA_STATE_READY: _ClassVar[ReplicaState]
    REPLICA_STATE_DRAINING: _ClassVar[ReplicaState]
    REPLICA_STATE_STOPPED: _ClassVar[ReplicaState]
    REPLICA_STATE_FAILED: _ClassVar[ReplicaState]
    REPLICA_STATE_UNKNOWN: _ClassVar[ReplicaState]
DEPLOYMENT_STATE_UNSPECIFIED: DeploymentState
DEPLOYMENT_STATE_PENDING: DeploymentState
DEPLOYMENT_STATE_STARTING: DeploymentState
DEPLOYMENT_STATE_READY: DeploymentState
DEPLOYMENT_STATE_DEGRADED: DeploymentState
DEPLOYMENT_STATE_FAILED: DeploymentState
DEPLOYMENT_STATE_DELETING: DeploymentState
DEPLOYMENT_STATE_UNKNOWN: DeploymentState
ANTI_AFFINITY_SCOPE_UNSPECIFIED: AntiAffinityScope
ANTI_AFFINITY_SCOPE_NODE: AntiAffinityScope
ANTI_AFFINITY_SCOPE_GPU: AntiAffinityScope
SPECULATION_METHOD_UNSPECIFIED: SpeculationMethod
SPECULATION_METHOD_OFF: SpeculationMethod
SPECULATION_METHOD_NGRAM: SpeculationMethod
SPECULATION_METHOD_DRAFT_MODEL: SpeculationMethod
LAUNCH_STAGE_UNSPECIFIED: LaunchStage
LAUNCH_STAGE_LOCATING_MODEL: LaunchStage
LAUNCH_STAGE_FETCHING_MODEL: LaunchStage
LAUNCH_STAGE_BUILDING_ENVIRONMENT: LaunchStage
LAUNCH_STAGE_STARTING_ENGINE: LaunchStage
LAUNCH_STAGE_LOADING_WEIGHTS: LaunchStage
LAUNCH_STAGE_WARMING_UP: LaunchStage
LAUNCH_STAGE_HASHING_WEIGHTS: LaunchStage
REPLICA_STATE_UNSPECIFIED: ReplicaState
REPLICA_STATE_PENDING: ReplicaState
REPLICA_STATE_PREPARING: ReplicaState
REPLICA_STATE_STARTING: ReplicaState
REPLICA_STATE_READY: ReplicaState
REPLICA_STATE_DRAINING: ReplicaState
REPLICA_STATE_STOPPED: ReplicaState
REPLICA_STATE_FAILED: ReplicaState
REPLICA_STATE_UNKNOWN: ReplicaState

class Deployment(_message.Message):
    __slots__ = ("name", "uid", "generation", "observed_generation", "etag", "create_time", "update_time", "delete_time", "labels", "annotations", "model", "engine", "replica_count", "placement", "engine_options", "env", "state", "ready_replica_count", "conditions", "memory_need", "computed_options", "resolved_repository", "virtual_env", "rollout", "updated_replica_count", "routing_policy")
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
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    READY_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NEED_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_ENV_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROUTING_POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    generation: int
    observed_generation: int
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    model: ModelSource
    engine: str
    replica_count: int
    placement: PlacementPolicy
    engine_options: EngineOptions
    env: _containers.RepeatedCompositeFieldContainer[EnvVar]
    state: DeploymentState
    ready_replica_count: int
    conditions: _containers.RepeatedCompositeFieldContainer[_condition_pb2.Condition]
    memory_need: MemoryNeed
    computed_options: EngineOptions
    resolved_repository: HubRepository
    virtual_env: VirtualEnv
    rollout: RolloutPolicy
    updated_replica_count: int
    routing_policy: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., generation: _Optional[int] = ..., observed_generation: _Optional[int] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., model: _Optional[_Union[ModelSource, _Mapping]] = ..., engine: _Optional[str] = ..., replica_count: _Optional[int] = ..., placement: _Optional[_Union[PlacementPolicy, _Mapping]] = ..., engine_options: _Optional[_Union[EngineOptions, _Mapping]] = ..., env: _Optional[_Iterable[_Union[EnvVar, _Mapping]]] = ..., state: _Optional[_Union[DeploymentState, str]] = ..., ready_replica_count: _Optional[int] = ..., conditions: _Optional[_Iterable[_Union[_condition_pb2.Condition, _Mapping]]] = ..., memory_need: _Optional[_Union[MemoryNeed, _Mapping]] = ..., computed_options: _Optional[_Union[EngineOptions, _Mapping]] = ..., resolved_repository: _Optional[_Union[HubRepository, _Mapping]] = ..., virtual_env: _Optional[_Union[VirtualEnv, _Mapping]] = ..., rollout: _Optional[_Union[RolloutPolicy, _Mapping]] = ..., updated_replica_count: _Optional[int] = ..., routing_policy: _Optional[str] = ...) -> None: ...

class RolloutPolicy(_message.Message):
    __slots__ = ("max_surge", "max_unavailable", "drain_grace", "progress_deadline")
    MAX_SURGE_FIELD_NUMBER: _ClassVar[int]
    MAX_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    max_surge: int
    max_unavailable: int
    drain_grace: _duration_pb2.Duration
    progress_deadline: _duration_pb2.Duration
    def __init__(self, max_surge: _Optional[int] = ..., max_unavailable: _Optional[int] = ..., drain_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., progress_deadline: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MemoryNeed(_message.Message):
    __slots__ = ("total_bytes", "weight_bytes", "kv_cache_bytes", "overhead_bytes", "is_stated", "device", "is_fitted", "gpu_count")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_STATED_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    IS_FITTED_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    weight_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    is_stated: bool
    device: str
    is_fitted: bool
    gpu_count: int
    def __init__(self, total_bytes: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., overhead_bytes: _Optional[int] = ..., is_stated: bool = ..., device: _Optional[str] = ..., is_fitted: bool = ..., gpu_count: _Optional[int] = ...) -> None: ...

class ModelSource(_message.Message):
    __slots__ = ("path", "builtin", "family", "repository")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BUILTIN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    path: str
    builtin: str
    family: FamilyModel
    repository: HubRepository
    def __init__(self, path: _Optional[str] = ..., builtin: _Optional[str] = ..., family: _Optional[_Union[FamilyModel, _Mapping]] = ..., repository: _Optional[_Union[HubRepository, _Mapping]] = ...) -> None: ...

class FamilyModel(_message.Message):
    __slots__ = ("family", "size_in_billions", "format", "quantization")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SIZE_IN_BILLIONS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    family: str
    size_in_billions: str
    format: str
    quantization: str
    def __init__(self, family: _Optional[str] = ..., size_in_billions: _Optional[str] = ..., format: _Optional[str] = ..., quantization: _Optional[str] = ...) -> None: ...

class HubRepository(_message.Message):
    __slots__ = ("id", "revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    revision: str
    def __init__(self, id: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class PlacementPolicy(_message.Message):
    __slots__ = ("strategy", "gpu_count", "allow_shared_gpu", "memory_bytes", "gpus_per_replica", "allowed_gpus", "node_labels", "tolerations", "anti_affinity", "memory_fraction")
    class NodeLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SHARED_GPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_PER_REPLICA_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_GPUS_FIELD_NUMBER: _ClassVar[int]
    NODE_LABELS_FIELD_NUMBER: _ClassVar[int]
    TOLERATIONS_FIELD_NUMBER: _ClassVar[int]
    ANTI_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FRACTION_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    gpu_count: int
    allow_shared_gpu: bool
    memory_bytes: int
    gpus_per_replica: int
    allowed_gpus: _containers.RepeatedCompositeFieldContainer[NodeGpus]
    node_labels: _containers.ScalarMap[str, str]
    tolerations: _containers.RepeatedCompositeFieldContainer[Toleration]
    anti_affinity: _containers.RepeatedCompositeFieldContainer[AntiAffinity]
    memory_fraction: float
    def __init__(self, strategy: _Optional[str] = ..., gpu_count: _Optional[int] = ..., allow_shared_gpu: bool = ..., memory_bytes: _Optional[int] = ..., gpus_per_replica: _Optional[int] = ..., allowed_gpus: _Optional[_Iterable[_Union[NodeGpus, _Mapping]]] = ..., node_labels: _Optional[_Mapping[str, str]] = ..., tolerations: _Optional[_Iterable[_Union[Toleration, _Mapping]]] = ..., anti_affinity: _Optional[_Iterable[_Union[AntiAffinity, _Mapping]]] = ..., memory_fraction: _Optional[float] = ...) -> None: ...

class NodeGpus(_message.Message):
    __slots__ = ("node", "indexes", "uuids")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    UUIDS_FIELD_NUMBER: _ClassVar[int]
    node: str
    indexes: _containers.RepeatedScalarFieldContainer[int]
    uuids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., indexes: _Optional[_Iterable[int]] = ..., uuids: _Optional[_Iterable[str]] = ...) -> None: ...

class Toleration(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class AntiAffinity(_message.Message):
    __slots__ = ("deployment_labels", "scope")
    class DeploymentLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEPLOYMENT_LABELS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    deployment_labels: _containers.ScalarMap[str, str]
    scope: AntiAffinityScope
    def __init__(self, deployment_labels: _Optional[_Mapping[str, str]] = ..., scope: _Optional[_Union[AntiAffinityScope, str]] = ...) -> None: ...

class EngineOptions(_message.Message):
    __slots__ = ("max_model_len", "batch_size", "batch_interval", "max_num_batched_tokens", "kv_cache_memory_bytes", "block_size", "dtype", "max_waiting", "enable_prefix_caching", "attention", "compile", "quantization", "speculation", "fit_max_model_len", "fit_kv_cache_memory", "arguments", "enable_thinking")
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BATCH_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_FIELD_NUMBER: _ClassVar[int]
    ENABLE_PREFIX_CACHING_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    FIT_MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    FIT_KV_CACHE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_THINKING_FIELD_NUMBER: _ClassVar[int]
    max_model_len: int
    batch_size: int
    batch_interval: _duration_pb2.Duration
    max_num_batched_tokens: int
    kv_cache_memory_bytes: int
    block_size: int
    dtype: str
    max_waiting: int
    enable_prefix_caching: bool
    attention: str
    compile: bool
    quantization: str
    speculation: Speculation
    fit_max_model_len: bool
    fit_kv_cache_memory: bool
    arguments: _containers.RepeatedCompositeFieldContainer[EngineArgument]
    enable_thinking: bool
    def __init__(self, max_model_len: _Optional[int] = ..., batch_size: _Optional[int] = ..., batch_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_num_batched_tokens: _Optional[int] = ..., kv_cache_memory_bytes: _Optional[int] = ..., block_size: _Optional[int] = ..., dtype: _Optional[str] = ..., max_waiting: _Optional[int] = ..., enable_prefix_caching: bool = ..., attention: _Optional[str] = ..., compile: bool = ..., quantization: _Optional[str] = ..., speculation: _Optional[_Union[Speculation, _Mapping]] = ..., fit_max_model_len: bool = ..., fit_kv_cache_memory: bool = ..., arguments: _Optional[_Iterable[_Union[EngineArgument, _Mapping]]] = ..., enable_thinking: bool = ...) -> None: ...

class EngineArgument(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Speculation(_message.Message):
    __slots__ = ("method", "draft_model", "token_count")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DRAFT_MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    method: SpeculationMethod
    draft_model: ModelSource
    token_count: int
    def __init__(self, method: _Optional[_Union[SpeculationMethod, str]] = ..., draft_model: _Optional[_Union[ModelSource, _Mapping]] = ..., token_count: _Optional[int] = ...) -> None: ...

class EnvVar(_message.Message):
    __slots__ = ("name", "value", "secret_value", "secret_ref", "secret_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_VALUE_FIELD_NUMBER: _ClassVar[int]
    SECRET_REF_FIELD_NUMBER: _ClassVar[int]
    SECRET_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    secret_value: str
    secret_ref: str
    secret_version: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., secret_value: _Optional[str] = ..., secret_ref: _Optional[str] = ..., secret_version: _Optional[int] = ...) -> None: ...

class VirtualEnv(_message.Message):
    __slots__ = ("packages", "constraints", "index_url", "find_links", "inherit")
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_URL_FIELD_NUMBER: _ClassVar[int]
    FIND_LINKS_FIELD_NUMBER: _ClassVar[int]
    INHERIT_FIELD_NUMBER: _ClassVar[int]
    packages: _containers.RepeatedScalarFieldContainer[str]
    constraints: _containers.RepeatedScalarFieldContainer[str]
    index_url: str
    find_links: _containers.RepeatedScalarFieldContainer[str]
    inherit: bool
    def __init__(self, packages: _Optional[_Iterable[str]] = ..., constraints: _Optional[_Iterable[str]] = ..., index_url: _Optional[str] = ..., find_links: _Optional[_Iterable[str]] = ..., inherit: bool = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("name", "uid", "state", "state_time", "node", "gpus", "reserved_memory_bytes", "placement_epoch", "deployment_generation", "engine_pid", "engine_uuid", "engine_address", "restart_count", "last_exit", "next_start_time", "message", "load", "conditions", "package_versions", "progress")
    class PackageVersionsEntry(_message.Message):
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
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_PID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    NEXT_START_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    state: ReplicaState
    state_time: _timestamp_pb2.Timestamp
    node: str
    gpus: _containers.RepeatedCompositeFieldContainer[ReplicaGpu]
    reserved_memory_bytes: int
    placement_epoch: int
    deployment_generation: int
    engine_pid: int
    engine_uuid: str
    engine_address: str
    restart_count: int
    last_exit: EngineExit
    next_start_time: _timestamp_pb2.Timestamp
    message: str
    load: EngineLoad
    conditions: _containers.RepeatedCompositeFieldContainer[_condition_pb2.Condition]
    package_versions: _containers.ScalarMap[str, str]
    progress: LaunchProgress
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., state: _Optional[_Union[ReplicaState, str]] = ..., state_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., node: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[ReplicaGpu, _Mapping]]] = ..., reserved_memory_bytes: _Optional[int] = ..., placement_epoch: _Optional[int] = ..., deployment_generation: _Optional[int] = ..., engine_pid: _Optional[int] = ..., engine_uuid: _Optional[str] = ..., engine_address: _Optional[str] = ..., restart_count: _Optional[int] = ..., last_exit: _Optional[_Union[EngineExit, _Mapping]] = ..., next_start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., load: _Optional[_Union[EngineLoad, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[_condition_pb2.Condition, _Mapping]]] = ..., package_versions: _Optional[_Mapping[str, str]] = ..., progress: _Optional[_Union[LaunchProgress, _Mapping]] = ...) -> None: ...

class LaunchProgress(_message.Message):
    __slots__ = ("stage", "stage_start_time", "fraction", "done_bytes", "total_bytes")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGE_START_TIME_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    stage: LaunchStage
    stage_start_time: _timestamp_pb2.Timestamp
    fraction: float
    done_bytes: int
    total_bytes: int
    def __init__(self, stage: _Optional[_Union[LaunchStage, str]] = ..., stage_start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., fraction: _Optional[float] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class ReplicaGpu(_message.Message):
    __slots__ = ("uuid", "index")
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    index: int
    def __init__(self, uuid: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class EngineExit(_message.Message):
    __slots__ = ("exit_code", "signal", "stderr_lines", "exit_time")
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STDERR_LINES_FIELD_NUMBER: _ClassVar[int]
    EXIT_TIME_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    signal: int
    stderr_lines: _containers.RepeatedScalarFieldContainer[str]
    exit_time: _timestamp_pb2.Timestamp
    def __init__(self, exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., stderr_lines: _Optional[_Iterable[str]] = ..., exit_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EngineLoad(_message.Message):
    __slots__ = ("running_count", "waiting_count", "free_block_count", "total_block_count", "step_count", "last_step_age", "busy_fraction", "output_token_count", "preemption_count", "out_of_memory_count", "prompt_token_count", "cached_prompt_token_count", "drafted_token_count", "accepted_token_count", "max_running_count", "kv_token_count")
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREE_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_AGE_FIELD_NUMBER: _ClassVar[int]
    BUSY_FRACTION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    running_count: int
    waiting_count: int
    free_block_count: int
    total_block_count: int
    step_count: int
    last_step_age: _duration_pb2.Duration
    busy_fraction: float
    output_token_count: int
    preemption_count: int
    out_of_memory_count: int
    prompt_token_count: int
    cached_prompt_token_count: int
    drafted_token_count: int
    accepted_token_count: int
    max_running_count: int
    kv_token_count: int
    def __init__(self, running_count: _Optional[int] = ..., waiting_count: _Optional[int] = ..., free_block_count: _Optional[int] = ..., total_block_count: _Optional[int] = ..., step_count: _Optional[int] = ..., last_step_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., busy_fraction: _Optional[float] = ..., output_token_count: _Optional[int] = ..., preemption_count: _Optional[int] = ..., out_of_memory_count: _Optional[int] = ..., prompt_token_count: _Optional[int] = ..., cached_prompt_token_count: _Optional[int] = ..., drafted_token_count: _Optional[int] = ..., accepted_token_count: _Optional[int] = ..., max_running_count: _Optional[int] = ..., kv_token_count: _Optional[int] = ...) -> None: ...
