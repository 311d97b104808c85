from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import access_pb2 as _access_pb2
from roundhouse.v1 import watch_pb2 as _watch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRoutesRequest(_message.Message):
    __slots__ = ("gateway_id",)
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    def __init__(self, gateway_id: _Optional[str] = ...) -> None: ...

class WatchRoutesResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[RoutesEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[RoutesEvent, _Mapping]]] = ...) -> None: ...

class RoutesEvent(_message.Message):
    __slots__ = ("changed", "deleted", "bookmark", "callers", "gateway_count")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_COUNT_FIELD_NUMBER: _ClassVar[int]
    changed: DeploymentRoutes
    deleted: str
    bookmark: _watch_pb2.Bookmark
    callers: Callers
    gateway_count: int
    def __init__(self, changed: _Optional[_Union[DeploymentRoutes, _Mapping]] = ..., deleted: _Optional[str] = ..., bookmark: _Optional[_Union[_watch_pb2.Bookmark, _Mapping]] = ..., callers: _Optional[_Union[Callers, _Mapping]] = ..., gateway_count: _Optional[int] = ...) -> None: ...

class Callers(_message.Message):
    __slots__ = ("are_asked", "tokens")
    ARE_ASKED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    are_asked: bool
    tokens: _containers.RepeatedCompositeFieldContainer[CallerToken]
    def __init__(self, are_asked: bool = ..., tokens: _Optional[_Iterable[_Union[CallerToken, _Mapping]]] = ...) -> None: ...

class CallerToken(_message.Message):
    __slots__ = ("secret_hash", "principal", "role", "tenant", "expire_time")
    SECRET_HASH_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    secret_hash: bytes
    principal: str
    role: _access_pb2.AccessRole
    tenant: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, secret_hash: _Optional[bytes] = ..., principal: _Optional[str] = ..., role: _Optional[_Union[_access_pb2.AccessRole, str]] = ..., tenant: _Optional[str] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeploymentRoutes(_message.Message):
    __slots__ = ("deployment", "is_deleting", "routes", "silent_replicas", "fingerprints", "routing_policy")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    IS_DELETING_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    SILENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_POLICY_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    is_deleting: bool
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    silent_replicas: _containers.RepeatedCompositeFieldContainer[SilentReplica]
    fingerprints: _containers.RepeatedScalarFieldContainer[str]
    routing_policy: str
    def __init__(self, deployment: _Optional[str] = ..., is_deleting: bool = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., silent_replicas: _Optional[_Iterable[_Union[SilentReplica, _Mapping]]] = ..., fingerprints: _Optional[_Iterable[str]] = ..., routing_policy: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("index", "replica_uid", "placement_epoch", "node", "address", "engine_uuid", "engine_key", "is_ready", "running_count", "waiting_count", "fingerprint_number", "used_block_eighths", "is_load_unknown", "max_running_count", "kv_token_count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_KEY_FIELD_NUMBER: _ClassVar[int]
    IS_READY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    USED_BLOCK_EIGHTHS_FIELD_NUMBER: _ClassVar[int]
    IS_LOAD_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    index: int
    replica_uid: str
    placement_epoch: int
    node: str
    address: str
    engine_uuid: str
    engine_key: bytes
    is_ready: bool
    running_count: int
    waiting_count: int
    fingerprint_number: int
    used_block_eighths: int
    is_load_unknown: bool
    max_running_count: int
    kv_token_count: int
    def __init__(self, index: _Optional[int] = ..., replica_uid: _Optional[str] = ..., placement_epoch: _Optional[int] = ..., node: _Optional[str] = ..., address: _Optional[str] = ..., engine_uuid: _Optional[str] = ..., engine_key: _Optional[bytes] = ..., is_ready: bool = ..., running_count: _Optional[int] = ..., waiting_count: _Optional[int] = ..., fingerprint_number: _Optional[int] = ..., used_block_eighths: _Optional[int] = ..., is_load_unknown: bool = ..., max_running_count: _Optional[int] = ..., kv_token_count: _Optional[int] = ...) -> None: ...

class SilentReplica(_message.Message):
    __slots__ = ("index", "replica_uid")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    index: int
    replica_uid: str
    def __init__(self, index: _Optional[int] = ..., replica_uid: _Optional[str] = ...) -> None: ...
