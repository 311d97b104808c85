from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelAbility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_ABILITY_UNSPECIFIED: _ClassVar[ModelAbility]
    MODEL_ABILITY_GENERATE: _ClassVar[ModelAbility]
    MODEL_ABILITY_CHAT: _ClassVar[ModelAbility]
    MODEL_ABILITY_REASONING: _ClassVar[ModelAbility]
    MODEL_ABILITY_HYBRID_REASONING: _ClassVar[ModelAbility]
    MODEL_ABILITY_TOOLS: _ClassVar[ModelAbility]
    MODEL_ABILITY_VISION: _ClassVar[ModelAbility]
MODEL_ABILITY_UNSPECIFIED: ModelAbility
MODEL_ABILITY_GENERATE: ModelAbility
MODEL_ABILITY_CHAT: ModelAbility
MODEL_ABILITY_REASONING: ModelAbility
MODEL_ABILITY_HYBRID_REASONING: ModelAbility
MODEL_ABILITY_TOOLS: ModelAbility
MODEL_ABILITY_VISION: ModelAbility

class ModelFamily(_message.Message):
    __slots__ = ("name", "is_builtin", "create_time", "description", "variants", "abilities", "context_tokens", "chat_template", "model_type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_BUILTIN_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_builtin: bool
    create_time: _timestamp_pb2.Timestamp
    description: str
    variants: _containers.RepeatedCompositeFieldContainer[ModelVariant]
    abilities: _containers.RepeatedScalarFieldContainer[ModelAbility]
    context_tokens: int
    chat_template: str
    model_type: str
    def __init__(self, name: _Optional[str] = ..., is_builtin: bool = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., description: _Optional[str] = ..., variants: _Optional[_Iterable[_Union[ModelVariant, _Mapping]]] = ..., abilities: _Optional[_Iterable[_Union[ModelAbility, str]]] = ..., context_tokens: _Optional[int] = ..., chat_template: _Optional[str] = ..., model_type: _Optional[str] = ...) -> None: ...

class ModelVariant(_message.Message):
    __slots__ = ("size_in_billions", "format", "quantization", "locations", "files", "context_tokens")
    SIZE_IN_BILLIONS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    size_in_billions: str
    format: str
    quantization: str
    locations: _containers.RepeatedCompositeFieldContainer[ModelLocation]
    files: _containers.RepeatedScalarFieldContainer[str]
    context_tokens: int
    def __init__(self, size_in_billions: _Optional[str] = ..., format: _Optional[str] = ..., quantization: _Optional[str] = ..., locations: _Optional[_Iterable[_Union[ModelLocation, _Mapping]]] = ..., files: _Optional[_Iterable[str]] = ..., context_tokens: _Optional[int] = ...) -> None: ...

class ModelLocation(_message.Message):
    __slots__ = ("repository", "path")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    repository: _deployment_pb2.HubRepository
    path: str
    def __init__(self, repository: _Optional[_Union[_deployment_pb2.HubRepository, _Mapping]] = ..., path: _Optional[str] = ...) -> None: ...

class CachedModel(_message.Message):
    __slots__ = ("name", "repository", "references", "size_bytes", "file_count", "last_used_time", "replicas")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    repository: _deployment_pb2.HubRepository
    references: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    file_count: int
    last_used_time: _timestamp_pb2.Timestamp
    replicas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., repository: _Optional[_Union[_deployment_pb2.HubRepository, _Mapping]] = ..., references: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., file_count: _Optional[int] = ..., last_used_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., replicas: _Optional[_Iterable[str]] = ...) -> None: ...
