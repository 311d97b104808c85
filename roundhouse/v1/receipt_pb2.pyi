from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CancelOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_OUTCOME_UNSPECIFIED: _ClassVar[CancelOutcome]
    CANCEL_OUTCOME_CANCELLED: _ClassVar[CancelOutcome]
    CANCEL_OUTCOME_ALREADY_FINISHED: _ClassVar[CancelOutcome]
    CANCEL_OUTCOME_NOT_ARRIVED: _ClassVar[CancelOutcome]
    CANCEL_OUTCOME_UNPROVEN: _ClassVar[CancelOutcome]
    CANCEL_OUTCOME_LOST: _ClassVar[CancelOutcome]

class CancelLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_LEVEL_UNSPECIFIED: _ClassVar[CancelLevel]
    CANCEL_LEVEL_REQUESTED: _ClassVar[CancelLevel]
    CANCEL_LEVEL_STOPPED: _ClassVar[CancelLevel]
    CANCEL_LEVEL_FREED: _ClassVar[CancelLevel]

class CancelCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_CAUSE_UNSPECIFIED: _ClassVar[CancelCause]
    CANCEL_CAUSE_CLIENT: _ClassVar[CancelCause]
    CANCEL_CAUSE_DEADLINE: _ClassVar[CancelCause]
    CANCEL_CAUSE_DISCONNECT: _ClassVar[CancelCause]
    CANCEL_CAUSE_ORPHANED: _ClassVar[CancelCause]
    CANCEL_CAUSE_HANDOVER: _ClassVar[CancelCause]
    CANCEL_CAUSE_DELETED: _ClassVar[CancelCause]
    CANCEL_CAUSE_EVICTED: _ClassVar[CancelCause]
CANCEL_OUTCOME_UNSPECIFIED: CancelOutcome
CANCEL_OUTCOME_CANCELLED: CancelOutcome
CANCEL_OUTCOME_ALREADY_FINISHED: CancelOutcome
CANCEL_OUTCOME_NOT_ARRIVED: CancelOutcome
CANCEL_OUTCOME_UNPROVEN: CancelOutcome
CANCEL_OUTCOME_LOST: CancelOutcome
CANCEL_LEVEL_UNSPECIFIED: CancelLevel
CANCEL_LEVEL_REQUESTED: CancelLevel
CANCEL_LEVEL_STOPPED: CancelLevel
CANCEL_LEVEL_FREED: CancelLevel
CANCEL_CAUSE_UNSPECIFIED: CancelCause
CANCEL_CAUSE_CLIENT: CancelCause
CANCEL_CAUSE_DEADLINE: CancelCause
CANCEL_CAUSE_DISCONNECT: CancelCause
CANCEL_CAUSE_ORPHANED: CancelCause
CANCEL_CAUSE_HANDOVER: CancelCause
CANCEL_CAUSE_DELETED: CancelCause
CANCEL_CAUSE_EVICTED: CancelCause

class CancelReceipt(_message.Message):
    __slots__ = ("deployment", "request_id", "outcome", "level", "cause", "positions", "prompt_token_count", "output_token_count", "freed_block_count", "free_block_count_before", "free_block_count", "total_block_count", "steps_after", "elapsed", "attempt", "replica", "unreachable", "receipt_time")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREED_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREE_BLOCK_COUNT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    FREE_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEPS_AFTER_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_TIME_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    request_id: str
    outcome: CancelOutcome
    level: CancelLevel
    cause: CancelCause
    positions: _containers.RepeatedCompositeFieldContainer[ChoicePosition]
    prompt_token_count: int
    output_token_count: int
    freed_block_count: int
    free_block_count_before: int
    free_block_count: int
    total_block_count: int
    steps_after: int
    elapsed: _duration_pb2.Duration
    attempt: int
    replica: str
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    receipt_time: _timestamp_pb2.Timestamp
    def __init__(self, deployment: _Optional[str] = ..., request_id: _Optional[str] = ..., outcome: _Optional[_Union[CancelOutcome, str]] = ..., level: _Optional[_Union[CancelLevel, str]] = ..., cause: _Optional[_Union[CancelCause, str]] = ..., positions: _Optional[_Iterable[_Union[ChoicePosition, _Mapping]]] = ..., prompt_token_count: _Optional[int] = ..., output_token_count: _Optional[int] = ..., freed_block_count: _Optional[int] = ..., free_block_count_before: _Optional[int] = ..., free_block_count: _Optional[int] = ..., total_block_count: _Optional[int] = ..., steps_after: _Optional[int] = ..., elapsed: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., attempt: _Optional[int] = ..., replica: _Optional[str] = ..., unreachable: _Optional[_Iterable[str]] = ..., receipt_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ChoicePosition(_message.Message):
    __slots__ = ("choice", "output_token_count")
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    choice: int
    output_token_count: int
    def __init__(self, choice: _Optional[int] = ..., output_token_count: _Optional[int] = ...) -> None: ...
