from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roundhouse.v1 import generation_pb2 as _generation_pb2
from roundhouse.v1 import receipt_pb2 as _receipt_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_STATE_UNSPECIFIED: _ClassVar[RequestState]
    REQUEST_STATE_WAITING: _ClassVar[RequestState]
    REQUEST_STATE_RUNNING: _ClassVar[RequestState]
    REQUEST_STATE_ENDED: _ClassVar[RequestState]
    REQUEST_STATE_NEVER_CAME: _ClassVar[RequestState]
REQUEST_STATE_UNSPECIFIED: RequestState
REQUEST_STATE_WAITING: RequestState
REQUEST_STATE_RUNNING: RequestState
REQUEST_STATE_ENDED: RequestState
REQUEST_STATE_NEVER_CAME: RequestState

class InferenceRequest(_message.Message):
    __slots__ = ("deployment", "request_id", "state", "location", "replica", "attempt", "positions", "prompt_token_count", "arrival_time", "priority", "labels", "on_disconnect", "follower_count", "finishes", "receipt")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_TIME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    FOLLOWER_COUNT_FIELD_NUMBER: _ClassVar[int]
    FINISHES_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    request_id: str
    state: RequestState
    location: str
    replica: str
    attempt: int
    positions: _containers.RepeatedCompositeFieldContainer[_receipt_pb2.ChoicePosition]
    prompt_token_count: int
    arrival_time: _timestamp_pb2.Timestamp
    priority: int
    labels: _containers.ScalarMap[str, str]
    on_disconnect: _generation_pb2.OnDisconnect
    follower_count: int
    finishes: _containers.RepeatedCompositeFieldContainer[_generation_pb2.Finished]
    receipt: _receipt_pb2.CancelReceipt
    def __init__(self, deployment: _Optional[str] = ..., request_id: _Optional[str] = ..., state: _Optional[_Union[RequestState, str]] = ..., location: _Optional[str] = ..., replica: _Optional[str] = ..., attempt: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[_receipt_pb2.ChoicePosition, _Mapping]]] = ..., prompt_token_count: _Optional[int] = ..., arrival_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., priority: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., on_disconnect: _Optional[_Union[_generation_pb2.OnDisconnect, _Mapping]] = ..., follower_count: _Optional[int] = ..., finishes: _Optional[_Iterable[_Union[_generation_pb2.Finished, _Mapping]]] = ..., receipt: _Optional[_Union[_receipt_pb2.CancelReceipt, _Mapping]] = ...) -> None: ...
