from roundhouse.v1 import generation_pb2 as _generation_pb2
from roundhouse.v1 import inference_service_pb2 as _inference_service_pb2
from roundhouse.v1 import receipt_pb2 as _receipt_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hop(_message.Message):
    __slots__ = ("engine_uuid", "engine_key", "principal", "tenant", "attempt", "keeper", "cancel_cause", "follower", "wants_kept", "words", "unserved")
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_KEY_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KEEPER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_CAUSE_FIELD_NUMBER: _ClassVar[int]
    FOLLOWER_FIELD_NUMBER: _ClassVar[int]
    WANTS_KEPT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    UNSERVED_FIELD_NUMBER: _ClassVar[int]
    engine_uuid: str
    engine_key: bytes
    principal: str
    tenant: str
    attempt: int
    keeper: str
    cancel_cause: _receipt_pb2.CancelCause
    follower: str
    wants_kept: bool
    words: bytes
    unserved: _receipt_pb2.CancelReceipt
    def __init__(self, engine_uuid: _Optional[str] = ..., engine_key: _Optional[bytes] = ..., principal: _Optional[str] = ..., tenant: _Optional[str] = ..., attempt: _Optional[int] = ..., keeper: _Optional[str] = ..., cancel_cause: _Optional[_Union[_receipt_pb2.CancelCause, str]] = ..., follower: _Optional[str] = ..., wants_kept: bool = ..., words: _Optional[bytes] = ..., unserved: _Optional[_Union[_receipt_pb2.CancelReceipt, _Mapping]] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("generate", "chat", "words")
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    generate: _inference_service_pb2.GenerateRequest
    chat: _inference_service_pb2.ChatRequest
    words: bytes
    def __init__(self, generate: _Optional[_Union[_inference_service_pb2.GenerateRequest, _Mapping]] = ..., chat: _Optional[_Union[_inference_service_pb2.ChatRequest, _Mapping]] = ..., words: _Optional[bytes] = ...) -> None: ...

class KeptResponse(_message.Message):
    __slots__ = ("events", "kept")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_generation_pb2.GenerationEvent]
    kept: Kept
    def __init__(self, events: _Optional[_Iterable[_Union[_generation_pb2.GenerationEvent, _Mapping]]] = ..., kept: _Optional[_Union[Kept, _Mapping]] = ...) -> None: ...

class Location(_message.Message):
    __slots__ = ("replica_uid", "engine_uuid", "attempt")
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    replica_uid: str
    engine_uuid: str
    attempt: int
    def __init__(self, replica_uid: _Optional[str] = ..., engine_uuid: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...
