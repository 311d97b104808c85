from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EngineSpec(_message.Message):
    __slots__ = ("deployment", "engine", "model", "options", "env", "computed", "draft_kv_cache_memory_bytes", "chat_template", "virtual_env", "sealed_env", "secret_names", "unopened_names")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_FIELD_NUMBER: _ClassVar[int]
    DRAFT_KV_CACHE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_ENV_FIELD_NUMBER: _ClassVar[int]
    SEALED_ENV_FIELD_NUMBER: _ClassVar[int]
    SECRET_NAMES_FIELD_NUMBER: _ClassVar[int]
    UNOPENED_NAMES_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    engine: str
    model: _deployment_pb2.ModelSource
    options: _deployment_pb2.EngineOptions
    env: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.EnvVar]
    computed: _deployment_pb2.EngineOptions
    draft_kv_cache_memory_bytes: int
    chat_template: str
    virtual_env: _deployment_pb2.VirtualEnv
    sealed_env: _containers.RepeatedCompositeFieldContainer[SealedValue]
    secret_names: _containers.RepeatedScalarFieldContainer[str]
    unopened_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deployment: _Optional[str] = ..., engine: _Optional[str] = ..., model: _Optional[_Union[_deployment_pb2.ModelSource, _Mapping]] = ..., options: _Optional[_Union[_deployment_pb2.EngineOptions, _Mapping]] = ..., env: _Optional[_Iterable[_Union[_deployment_pb2.EnvVar, _Mapping]]] = ..., computed: _Optional[_Union[_deployment_pb2.EngineOptions, _Mapping]] = ..., draft_kv_cache_memory_bytes: _Optional[int] = ..., chat_template: _Optional[str] = ..., virtual_env: _Optional[_Union[_deployment_pb2.VirtualEnv, _Mapping]] = ..., sealed_env: _Optional[_Iterable[_Union[SealedValue, _Mapping]]] = ..., secret_names: _Optional[_Iterable[str]] = ..., unopened_names: _Optional[_Iterable[str]] = ...) -> None: ...

class SealedValue(_message.Message):
    __slots__ = ("name", "version", "sealed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    sealed: bytes
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class EngineBundle(_message.Message):
    __slots__ = ("engine_uuid", "replica", "replica_uid", "placement_epoch", "deployment_generation", "spec", "gpu_uuids", "reserved_memory_bytes", "device", "listen_host", "lowest_port", "highest_port", "start_time", "cluster_id")
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LISTEN_HOST_FIELD_NUMBER: _ClassVar[int]
    LOWEST_PORT_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_PORT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    engine_uuid: str
    replica: str
    replica_uid: str
    placement_epoch: int
    deployment_generation: int
    spec: EngineSpec
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    reserved_memory_bytes: int
    device: str
    listen_host: str
    lowest_port: int
    highest_port: int
    start_time: _timestamp_pb2.Timestamp
    cluster_id: str
    def __init__(self, engine_uuid: _Optional[str] = ..., replica: _Optional[str] = ..., replica_uid: _Optional[str] = ..., placement_epoch: _Optional[int] = ..., deployment_generation: _Optional[int] = ..., spec: _Optional[_Union[EngineSpec, _Mapping]] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., reserved_memory_bytes: _Optional[int] = ..., device: _Optional[str] = ..., listen_host: _Optional[str] = ..., lowest_port: _Optional[int] = ..., highest_port: _Optional[int] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., cluster_id: _Optional[str] = ...) -> None: ...

class EngineReady(_message.Message):
    __slots__ = ("address", "pid", "process_start_ticks", "boot_id", "engine_uuid")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_START_TICKS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    address: str
    pid: int
    process_start_ticks: int
    boot_id: str
    engine_uuid: str
    def __init__(self, address: _Optional[str] = ..., pid: _Optional[int] = ..., process_start_ticks: _Optional[int] = ..., boot_id: _Optional[str] = ..., engine_uuid: _Optional[str] = ...) -> None: ...
