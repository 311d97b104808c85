from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetAgentEndpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAgentEndpointResponse(_message.Message):
    __slots__ = ("requires_certificate", "port")
    REQUIRES_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    requires_certificate: bool
    port: int
    def __init__(self, requires_certificate: bool = ..., port: _Optional[int] = ...) -> None: ...

class EnrollNodeRequest(_message.Message):
    __slots__ = ("token", "node_id", "certificate_request")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    token: str
    node_id: str
    certificate_request: bytes
    def __init__(self, token: _Optional[str] = ..., node_id: _Optional[str] = ..., certificate_request: _Optional[bytes] = ...) -> None: ...

class EnrollNodeResponse(_message.Message):
    __slots__ = ("certificate", "expire_time")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, certificate: _Optional[bytes] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RenewNodeCertificateRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewNodeCertificateResponse(_message.Message):
    __slots__ = ("certificate", "expire_time")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, certificate: _Optional[bytes] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
