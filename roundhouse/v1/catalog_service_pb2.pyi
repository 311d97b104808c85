from roundhouse.v1 import catalog_pb2 as _catalog_pb2
from roundhouse.v1 import deployment_pb2 as _deployment_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterFamilyRequest(_message.Message):
    __slots__ = ("family", "allow_replace", "validate_only")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_REPLACE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    family: _catalog_pb2.ModelFamily
    allow_replace: bool
    validate_only: bool
    def __init__(self, family: _Optional[_Union[_catalog_pb2.ModelFamily, _Mapping]] = ..., allow_replace: bool = ..., validate_only: bool = ...) -> None: ...

class RegisterFamilyResponse(_message.Message):
    __slots__ = ("family",)
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    family: _catalog_pb2.ModelFamily
    def __init__(self, family: _Optional[_Union[_catalog_pb2.ModelFamily, _Mapping]] = ...) -> None: ...

class GetFamilyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetFamilyResponse(_message.Message):
    __slots__ = ("family",)
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    family: _catalog_pb2.ModelFamily
    def __init__(self, family: _Optional[_Union[_catalog_pb2.ModelFamily, _Mapping]] = ...) -> None: ...

class ListFamiliesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFamiliesResponse(_message.Message):
    __slots__ = ("families", "next_page_token")
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    families: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.ModelFamily]
    next_page_token: str
    def __init__(self, families: _Optional[_Iterable[_Union[_catalog_pb2.ModelFamily, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteFamilyRequest(_message.Message):
    __slots__ = ("name", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class DeleteFamilyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _deployment_pb2.FamilyModel
    def __init__(self, model: _Optional[_Union[_deployment_pb2.FamilyModel, _Mapping]] = ...) -> None: ...

class ResolveModelResponse(_message.Message):
    __slots__ = ("family", "variant", "nodes", "unreachable")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    family: _catalog_pb2.ModelFamily
    variant: _catalog_pb2.ModelVariant
    nodes: _containers.RepeatedCompositeFieldContainer[NodeModel]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, family: _Optional[_Union[_catalog_pb2.ModelFamily, _Mapping]] = ..., variant: _Optional[_Union[_catalog_pb2.ModelVariant, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[NodeModel, _Mapping]]] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeModel(_message.Message):
    __slots__ = ("node", "path", "message", "weight_bytes", "fetch_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    path: str
    message: str
    weight_bytes: int
    fetch_bytes: int
    def __init__(self, node: _Optional[str] = ..., path: _Optional[str] = ..., message: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., fetch_bytes: _Optional[int] = ...) -> None: ...

class ListCachedModelsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCachedModelsResponse(_message.Message):
    __slots__ = ("cached_models", "next_page_token", "unreachable")
    CACHED_MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    cached_models: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.CachedModel]
    next_page_token: str
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cached_models: _Optional[_Iterable[_Union[_catalog_pb2.CachedModel, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteCachedModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteCachedModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
