from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.internal.v1 import agent_service_pb2 as _agent_service_pb2
from roundhouse.internal.v1 import engine_spec_pb2 as _engine_spec_pb2
from roundhouse.v1 import access_pb2 as _access_pb2
from roundhouse.v1 import catalog_pb2 as _catalog_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from roundhouse.v1 import event_pb2 as _event_pb2
from roundhouse.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RolloutState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLLOUT_STATE_UNSPECIFIED: _ClassVar[RolloutState]
    ROLLOUT_STATE_RUNNING: _ClassVar[RolloutState]
    ROLLOUT_STATE_DONE: _ClassVar[RolloutState]
    ROLLOUT_STATE_ROLLED_BACK: _ClassVar[RolloutState]
ROLLOUT_STATE_UNSPECIFIED: RolloutState
ROLLOUT_STATE_RUNNING: RolloutState
ROLLOUT_STATE_DONE: RolloutState
ROLLOUT_STATE_ROLLED_BACK: RolloutState

class DeploymentRecord(_message.Message):
    __slots__ = ("deployment", "engine_spec", "memory_need", "drain_grace", "sealed_env", "spec_generation", "retired", "rollout")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_SPEC_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NEED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    SEALED_ENV_FIELD_NUMBER: _ClassVar[int]
    SPEC_GENERATION_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    engine_spec: _engine_spec_pb2.EngineSpec
    memory_need: _deployment_pb2.MemoryNeed
    drain_grace: _duration_pb2.Duration
    sealed_env: _containers.RepeatedCompositeFieldContainer[_engine_spec_pb2.SealedValue]
    spec_generation: int
    retired: _containers.RepeatedCompositeFieldContainer[RetiredSpec]
    rollout: Rollout
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., engine_spec: _Optional[_Union[_engine_spec_pb2.EngineSpec, _Mapping]] = ..., memory_need: _Optional[_Union[_deployment_pb2.MemoryNeed, _Mapping]] = ..., drain_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., sealed_env: _Optional[_Iterable[_Union[_engine_spec_pb2.SealedValue, _Mapping]]] = ..., spec_generation: _Optional[int] = ..., retired: _Optional[_Iterable[_Union[RetiredSpec, _Mapping]]] = ..., rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class RetiredSpec(_message.Message):
    __slots__ = ("spec_generation", "deployment", "engine_spec", "memory_need", "sealed_env", "is_proven")
    SPEC_GENERATION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_SPEC_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NEED_FIELD_NUMBER: _ClassVar[int]
    SEALED_ENV_FIELD_NUMBER: _ClassVar[int]
    IS_PROVEN_FIELD_NUMBER: _ClassVar[int]
    spec_generation: int
    deployment: _deployment_pb2.Deployment
    engine_spec: _engine_spec_pb2.EngineSpec
    memory_need: _deployment_pb2.MemoryNeed
    sealed_env: _containers.RepeatedCompositeFieldContainer[_engine_spec_pb2.SealedValue]
    is_proven: bool
    def __init__(self, spec_generation: _Optional[int] = ..., deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., engine_spec: _Optional[_Union[_engine_spec_pb2.EngineSpec, _Mapping]] = ..., memory_need: _Optional[_Union[_deployment_pb2.MemoryNeed, _Mapping]] = ..., sealed_env: _Optional[_Iterable[_Union[_engine_spec_pb2.SealedValue, _Mapping]]] = ..., is_proven: bool = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("state", "message")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    state: RolloutState
    message: str
    def __init__(self, state: _Optional[_Union[RolloutState, str]] = ..., message: _Optional[str] = ...) -> None: ...

class PlacementRecord(_message.Message):
    __slots__ = ("replica", "replica_uid", "deployment_uid", "placement_epoch", "node_id", "gpu_uuids", "reserved_memory_bytes", "is_stopping", "drain_grace", "spec_generation")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_UID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_STOPPING_FIELD_NUMBER: _ClassVar[int]
    DRAIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    SPEC_GENERATION_FIELD_NUMBER: _ClassVar[int]
    replica: str
    replica_uid: str
    deployment_uid: str
    placement_epoch: int
    node_id: str
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    reserved_memory_bytes: int
    is_stopping: bool
    drain_grace: _duration_pb2.Duration
    spec_generation: int
    def __init__(self, replica: _Optional[str] = ..., replica_uid: _Optional[str] = ..., deployment_uid: _Optional[str] = ..., placement_epoch: _Optional[int] = ..., node_id: _Optional[str] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., reserved_memory_bytes: _Optional[int] = ..., is_stopping: bool = ..., drain_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., spec_generation: _Optional[int] = ...) -> None: ...

class AssignmentRecord(_message.Message):
    __slots__ = ("engines", "specs", "spec_indexes", "gpu_uuids", "gpu_indexes")
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    SPECS_FIELD_NUMBER: _ClassVar[int]
    SPEC_INDEXES_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    GPU_INDEXES_FIELD_NUMBER: _ClassVar[int]
    engines: _containers.RepeatedCompositeFieldContainer[_agent_service_pb2.EngineAssignment]
    specs: _containers.RepeatedCompositeFieldContainer[_engine_spec_pb2.EngineSpec]
    spec_indexes: _containers.RepeatedScalarFieldContainer[int]
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    gpu_indexes: _containers.RepeatedCompositeFieldContainer[GpuIndexes]
    def __init__(self, engines: _Optional[_Iterable[_Union[_agent_service_pb2.EngineAssignment, _Mapping]]] = ..., specs: _Optional[_Iterable[_Union[_engine_spec_pb2.EngineSpec, _Mapping]]] = ..., spec_indexes: _Optional[_Iterable[int]] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., gpu_indexes: _Optional[_Iterable[_Union[GpuIndexes, _Mapping]]] = ...) -> None: ...

class GpuIndexes(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, indexes: _Optional[_Iterable[int]] = ...) -> None: ...

class NodeRecord(_message.Message):
    __slots__ = ("node_id", "cordon_time", "drain")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CORDON_TIME_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cordon_time: _timestamp_pb2.Timestamp
    drain: _node_pb2.NodeDrain
    def __init__(self, node_id: _Optional[str] = ..., cordon_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., drain: _Optional[_Union[_node_pb2.NodeDrain, _Mapping]] = ...) -> None: ...

class FamilyRecord(_message.Message):
    __slots__ = ("family",)
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    family: _catalog_pb2.ModelFamily
    def __init__(self, family: _Optional[_Union[_catalog_pb2.ModelFamily, _Mapping]] = ...) -> None: ...

class MutationRecord(_message.Message):
    __slots__ = ("body_hash", "method", "response", "write_time")
    BODY_HASH_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    WRITE_TIME_FIELD_NUMBER: _ClassVar[int]
    body_hash: bytes
    method: str
    response: bytes
    write_time: _timestamp_pb2.Timestamp
    def __init__(self, body_hash: _Optional[bytes] = ..., method: _Optional[str] = ..., response: _Optional[bytes] = ..., write_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ClusterRecord(_message.Message):
    __slots__ = ("cluster_id", "term")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    term: int
    def __init__(self, cluster_id: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class EventLogRecord(_message.Message):
    __slots__ = ("next_number", "dropped_revision", "batch_id")
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    DROPPED_REVISION_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    next_number: int
    dropped_revision: int
    batch_id: str
    def __init__(self, next_number: _Optional[int] = ..., dropped_revision: _Optional[int] = ..., batch_id: _Optional[str] = ...) -> None: ...

class EventRecord(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _event_pb2.Event
    def __init__(self, event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ...) -> None: ...

class AccessTokenRecord(_message.Message):
    __slots__ = ("access_token", "secret_hash")
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SECRET_HASH_FIELD_NUMBER: _ClassVar[int]
    access_token: _access_pb2.AccessToken
    secret_hash: bytes
    def __init__(self, access_token: _Optional[_Union[_access_pb2.AccessToken, _Mapping]] = ..., secret_hash: _Optional[bytes] = ...) -> None: ...

class NodeEpochRecord(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class JoinTokenRecord(_message.Message):
    __slots__ = ("node_id", "expire_time", "used_key_hash", "used_node_id", "used_epoch")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    USED_KEY_HASH_FIELD_NUMBER: _ClassVar[int]
    USED_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    USED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    expire_time: _timestamp_pb2.Timestamp
    used_key_hash: bytes
    used_node_id: str
    used_epoch: int
    def __init__(self, node_id: _Optional[str] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., used_key_hash: _Optional[bytes] = ..., used_node_id: _Optional[str] = ..., used_epoch: _Optional[int] = ...) -> None: ...
