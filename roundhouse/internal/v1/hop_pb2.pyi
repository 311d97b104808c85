from roundhouse.v1 import receipt_pb2 as _receipt_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hop(_message.Message):
    __slots__ = ("engine_uuid", "engine_key", "principal", "tenant", "attempt", "keeper", "cancel_cause")
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_KEY_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KEEPER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_CAUSE_FIELD_NUMBER: _ClassVar[int]
    engine_uuid: str
    engine_key: bytes
    principal: str
    tenant: str
    attempt: int
    keeper: str
    cancel_cause: _receipt_pb2.CancelCause
    def __init__(self, engine_uuid: _Optional[str] = ..., engine_key: _Optional[bytes] = ..., principal: _Optional[str] = ..., tenant: _Optional[str] = ..., attempt: _Optional[int] = ..., keeper: _Optional[str] = ..., cancel_cause: _Optional[_Union[_receipt_pb2.CancelCause, str]] = ...) -> None: ...

class Location(_message.Message):
    __slots__ = ("replica_uid", "engine_uuid", "attempt")
    REPLICA_UID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_UUID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    replica_uid: str
    engine_uuid: str
    attempt: int
    def __init__(self, replica_uid: _Optional[str] = ..., engine_uuid: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...
