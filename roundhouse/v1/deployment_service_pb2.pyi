from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from roundhouse.v1 import log_pb2 as _log_pb2
from roundhouse.v1 import watch_pb2 as _watch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceVerdictKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_VERDICT_KIND_UNSPECIFIED: _ClassVar[DeviceVerdictKind]
    DEVICE_VERDICT_KIND_PLACED: _ClassVar[DeviceVerdictKind]
    DEVICE_VERDICT_KIND_PASSED: _ClassVar[DeviceVerdictKind]
    DEVICE_VERDICT_KIND_REFUSED: _ClassVar[DeviceVerdictKind]
DEVICE_VERDICT_KIND_UNSPECIFIED: DeviceVerdictKind
DEVICE_VERDICT_KIND_PLACED: DeviceVerdictKind
DEVICE_VERDICT_KIND_PASSED: DeviceVerdictKind
DEVICE_VERDICT_KIND_REFUSED: DeviceVerdictKind

class CreateDeploymentRequest(_message.Message):
    __slots__ = ("deployment", "request_id", "validate_only", "allow_pending")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PENDING_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    request_id: str
    validate_only: bool
    allow_pending: bool
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ..., allow_pending: bool = ...) -> None: ...

class CreateDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class GetDeploymentRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class ListDeploymentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeploymentsResponse(_message.Message):
    __slots__ = ("deployments", "next_page_token", "unreachable", "cursor")
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.Deployment]
    next_page_token: str
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    cursor: str
    def __init__(self, deployments: _Optional[_Iterable[_Union[_deployment_pb2.Deployment, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., unreachable: _Optional[_Iterable[str]] = ..., cursor: _Optional[str] = ...) -> None: ...

class UpdateDeploymentRequest(_message.Message):
    __slots__ = ("deployment", "update_mask", "request_id", "validate_only", "allow_pending")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PENDING_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    update_mask: _field_mask_pb2.FieldMask
    request_id: str
    validate_only: bool
    allow_pending: bool
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ..., allow_pending: bool = ...) -> None: ...

class UpdateDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class ScaleDeploymentRequest(_message.Message):
    __slots__ = ("name", "replica_count", "etag", "request_id", "validate_only", "allow_pending")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PENDING_FIELD_NUMBER: _ClassVar[int]
    name: str
    replica_count: int
    etag: str
    request_id: str
    validate_only: bool
    allow_pending: bool
    def __init__(self, name: _Optional[str] = ..., replica_count: _Optional[int] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: bool = ..., allow_pending: bool = ...) -> None: ...

class ScaleDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class DeleteDeploymentRequest(_message.Message):
    __slots__ = ("name", "etag", "drain_grace", "request_id", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    DRAIN_GRACE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    drain_grace: _duration_pb2.Duration
    request_id: str
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., drain_grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class DeleteDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...

class WatchDeploymentsRequest(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    def __init__(self, cursor: _Optional[str] = ...) -> None: ...

class WatchDeploymentsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[DeploymentEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[DeploymentEvent, _Mapping]]] = ...) -> None: ...

class DeploymentEvent(_message.Message):
    __slots__ = ("changed", "deleted", "bookmark", "cursor")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    changed: _deployment_pb2.Deployment
    deleted: str
    bookmark: _watch_pb2.Bookmark
    cursor: str
    def __init__(self, changed: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., deleted: _Optional[str] = ..., bookmark: _Optional[_Union[_watch_pb2.Bookmark, _Mapping]] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListReplicasRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListReplicasResponse(_message.Message):
    __slots__ = ("replicas", "next_page_token", "unreachable")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.Replica]
    next_page_token: str
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replicas: _Optional[_Iterable[_Union[_deployment_pb2.Replica, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchReplicasRequest(_message.Message):
    __slots__ = ("parent",)
    PARENT_FIELD_NUMBER: _ClassVar[int]
    parent: str
    def __init__(self, parent: _Optional[str] = ...) -> None: ...

class WatchReplicasResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[ReplicaEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[ReplicaEvent, _Mapping]]] = ...) -> None: ...

class ReplicaEvent(_message.Message):
    __slots__ = ("changed", "deleted", "bookmark")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    changed: _deployment_pb2.Replica
    deleted: str
    bookmark: _watch_pb2.Bookmark
    def __init__(self, changed: _Optional[_Union[_deployment_pb2.Replica, _Mapping]] = ..., deleted: _Optional[str] = ..., bookmark: _Optional[_Union[_watch_pb2.Bookmark, _Mapping]] = ...) -> None: ...

class PlanDeploymentRequest(_message.Message):
    __slots__ = ("deployment", "name", "replica_count", "imagined_gpus")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGINED_GPUS_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    name: str
    replica_count: int
    imagined_gpus: _containers.RepeatedCompositeFieldContainer[ImaginedGpus]
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ..., name: _Optional[str] = ..., replica_count: _Optional[int] = ..., imagined_gpus: _Optional[_Iterable[_Union[ImaginedGpus, _Mapping]]] = ...) -> None: ...

class ImaginedGpus(_message.Message):
    __slots__ = ("node", "gpu_count", "memory_bytes", "labels", "has_nvlink")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HAS_NVLINK_FIELD_NUMBER: _ClassVar[int]
    node: str
    gpu_count: int
    memory_bytes: int
    labels: _containers.ScalarMap[str, str]
    has_nvlink: bool
    def __init__(self, node: _Optional[str] = ..., gpu_count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., has_nvlink: bool = ...) -> None: ...

class PlanDeploymentResponse(_message.Message):
    __slots__ = ("fits", "replicas", "memory_need", "computed_options", "nodes", "omitted_node_count", "displaced_replicas")
    FITS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NEED_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OMITTED_NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DISPLACED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    fits: bool
    replicas: _containers.RepeatedCompositeFieldContainer[PlannedReplica]
    memory_need: _deployment_pb2.MemoryNeed
    computed_options: _deployment_pb2.EngineOptions
    nodes: _containers.RepeatedCompositeFieldContainer[NodeVerdict]
    omitted_node_count: int
    displaced_replicas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fits: bool = ..., replicas: _Optional[_Iterable[_Union[PlannedReplica, _Mapping]]] = ..., memory_need: _Optional[_Union[_deployment_pb2.MemoryNeed, _Mapping]] = ..., computed_options: _Optional[_Union[_deployment_pb2.EngineOptions, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[NodeVerdict, _Mapping]]] = ..., omitted_node_count: _Optional[int] = ..., displaced_replicas: _Optional[_Iterable[str]] = ...) -> None: ...

class PlannedReplica(_message.Message):
    __slots__ = ("index", "is_standing", "node", "gpus", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    IS_STANDING_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    is_standing: bool
    node: str
    gpus: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.ReplicaGpu]
    message: str
    def __init__(self, index: _Optional[int] = ..., is_standing: bool = ..., node: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[_deployment_pb2.ReplicaGpu, _Mapping]]] = ..., message: _Optional[str] = ...) -> None: ...

class NodeVerdict(_message.Message):
    __slots__ = ("node", "is_imagined", "devices")
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_IMAGINED_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    node: str
    is_imagined: bool
    devices: _containers.RepeatedCompositeFieldContainer[DeviceVerdict]
    def __init__(self, node: _Optional[str] = ..., is_imagined: bool = ..., devices: _Optional[_Iterable[_Union[DeviceVerdict, _Mapping]]] = ...) -> None: ...

class DeviceVerdict(_message.Message):
    __slots__ = ("gpu_uuid", "gpu_index", "kind", "placed_count", "total_memory_bytes", "foreign_memory_bytes", "held_memory_bytes", "available_memory_bytes", "needed_memory_bytes", "message", "score")
    GPU_UUID_FIELD_NUMBER: _ClassVar[int]
    GPU_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PLACED_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HELD_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEEDED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    gpu_uuid: str
    gpu_index: int
    kind: DeviceVerdictKind
    placed_count: int
    total_memory_bytes: int
    foreign_memory_bytes: int
    held_memory_bytes: int
    available_memory_bytes: int
    needed_memory_bytes: int
    message: str
    score: _containers.RepeatedCompositeFieldContainer[ScoreTerm]
    def __init__(self, gpu_uuid: _Optional[str] = ..., gpu_index: _Optional[int] = ..., kind: _Optional[_Union[DeviceVerdictKind, str]] = ..., placed_count: _Optional[int] = ..., total_memory_bytes: _Optional[int] = ..., foreign_memory_bytes: _Optional[int] = ..., held_memory_bytes: _Optional[int] = ..., available_memory_bytes: _Optional[int] = ..., needed_memory_bytes: _Optional[int] = ..., message: _Optional[str] = ..., score: _Optional[_Iterable[_Union[ScoreTerm, _Mapping]]] = ...) -> None: ...

class ScoreTerm(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("name", "tail_line_count", "follow", "since_time", "previous_life", "stream")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LIFE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    name: str
    tail_line_count: int
    follow: bool
    since_time: _timestamp_pb2.Timestamp
    previous_life: bool
    stream: _log_pb2.LogStream
    def __init__(self, name: _Optional[str] = ..., tail_line_count: _Optional[int] = ..., follow: bool = ..., since_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., previous_life: bool = ..., stream: _Optional[_Union[_log_pb2.LogStream, str]] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[_log_pb2.LogLine]
    def __init__(self, lines: _Optional[_Iterable[_Union[_log_pb2.LogLine, _Mapping]]] = ...) -> None: ...
