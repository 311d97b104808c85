"""What a request to an engine may say: every bound of the contract, every violation named at once. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from roundhouse.kit.errors import FieldViolation, NotServed
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2

MAX_MESSAGES = 4096  # what is checked one by one must not hold up other streams: these take a few milliseconds
MAX_PARTS = 4096  # over all messages
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_STOP_TOKEN_IDS = 64
MAX_LABELS = 16
MAX_LABEL_KEY = 63
MAX_LABEL_VALUE = 255
MAX_SESSION_KEY = 255
MAX_PRIORITY = 100

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_ROLES = frozenset({generation_pb2.ROLE_SYSTEM, generation_pb2.ROLE_USER, generation_pb2.ROLE_ASSISTANT})
_SERVED_POLICIES = frozenset({generation_pb2.DISCONNECT_POLICY_UNSPECIFIED, generation_pb2.DISCONNECT_POLICY_CANCEL})
_SERVED_FAILOVERS = frozenset({generation_pb2.FAILOVER_POLICY_UNSPECIFIED, generation_pb2.FAILOVER_POLICY_NEVER})


def check_generate(request: inference_service_pb2.GenerateRequest, vocabulary_size: int) -> None:
    """Raises InvalidArgument with all that is wrong, else NotServed with all that is not served yet."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=False)
    _check_parts(check, "prompt", request.prompt, vocabulary_size)
    _check_common(check, request, vocabulary_size)


def check_chat(request: inference_service_pb2.ChatRequest, vocabulary_size: int) -> None:
    """Raises InvalidArgument with all that is wrong, else NotServed with all that is not served yet."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=False)
    _check_size(check, request.messages)
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        known = message.role in _ROLES
        check.require(known, f"{where}.role", f"{message.role} is not a role: use SYSTEM, USER or ASSISTANT")
        _check_parts(check, f"{where}.content", message.content, None)
    _check_common(check, request, vocabulary_size)


def check_cancel(request: inference_service_pb2.CancelRequestRequest) -> None:
    """Raises InvalidArgument with all that is wrong."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=True)
    check.raise_if_any()


def _check_common(
    check: FieldCheck,
    request: inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest,
    vocabulary_size: int,
) -> None:
    _check_sampling(check, request.sampling, vocabulary_size)
    _check_options(check, request.options)
    check.raise_if_any()
    _refuse_not_served(request.options)


def _check_target(check: FieldCheck, deployment: str) -> None:
    check.require(bool(deployment), "deployment", "is empty: give the bare id of a deployment")


def _check_request_id(check: FieldCheck, request_id: str, *, required: bool) -> None:
    if request_id or required:
        holds = _REQUEST_ID.match(request_id) is not None
        check.require(holds, "request_id", "is malformed: use 1 to 64 characters of [A-Za-z0-9._:-]")


def _check_size(check: FieldCheck, messages: Sequence[generation_pb2.Message]) -> None:
    """Raises at once if there is more than can be checked in passing."""
    check.require(len(messages) > 0, "messages", "is empty: give at least one message")
    _bound(check, "messages", len(messages), MAX_MESSAGES)
    _bound(check, "messages.content", sum(len(each.content) for each in messages), MAX_PARTS)


def _bound(check: FieldCheck, field: str, count: int, most: int) -> None:
    if not check.require(count <= most, field, f"{count} entries are too many: use at most {most}"):
        check.raise_if_any()


def _check_parts(
    check: FieldCheck, field: str, parts: Sequence[generation_pb2.ContentPart], vocabulary_size: int | None
) -> None:
    """Checks content; without a vocabulary size token ids are not allowed."""
    _bound(check, field, len(parts), MAX_PARTS)
    has_content = False
    for number, part in enumerate(parts):
        where = f"{field}[{number}]"
        kind = part.WhichOneof("part")
        check.require(kind is not None, where, "holds no content that this version knows: set text or token_ids")
        if kind == "token_ids" and vocabulary_size is None:
            check.require(False, f"{where}.token_ids", "is only for Generate: give text")
        elif kind == "token_ids" and vocabulary_size is not None:
            _check_ids(check, f"{where}.token_ids.ids", part.token_ids.ids, vocabulary_size)
        has_content = has_content or bool(part.text) or len(part.token_ids.ids) > 0
    check.require(has_content, field, "has no content: give at least one part that is not empty")


def _check_ids(check: FieldCheck, field: str, ids: Sequence[int], vocabulary_size: int) -> None:
    # `min` and `max` walk a prompt of a million ids without holding up other streams; a loop would.
    extremes = (min(ids), max(ids)) if ids else ()
    strange = next((each for each in extremes if not 0 <= each < vocabulary_size), None)
    check.require(strange is None, field, f"{strange} is not in the vocabulary: use ids in [0, {vocabulary_size})")


def _check_sampling(check: FieldCheck, sampling: generation_pb2.SamplingParams, vocabulary_size: int) -> None:
    # A NaN compares as false, so it fails every bound written as "low <= value <= high"; protobuf carries it happily.
    if sampling.HasField("temperature"):
        holds = 0 <= sampling.temperature <= 2
        check.require(holds, "sampling.temperature", f"{_number(sampling.temperature)} is out of range: use [0, 2]")
    if sampling.HasField("top_p"):
        holds = 0 < sampling.top_p <= 1
        check.require(holds, "sampling.top_p", f"{_number(sampling.top_p)} is out of range: use (0, 1]")
    if sampling.HasField("top_k"):
        check.require(sampling.top_k >= 0, "sampling.top_k", f"{sampling.top_k} is below 0: use 0 for all, or more")
    if sampling.HasField("max_tokens"):
        check.require(
            sampling.max_tokens >= 1, "sampling.max_tokens", f"{sampling.max_tokens} is too few: use at least 1"
        )
    count = len(sampling.stop)
    check.require(count <= MAX_STOPS, "sampling.stop", f"{count} entries are too many: use at most {MAX_STOPS}")
    for number, stop in enumerate(sampling.stop[:MAX_STOPS]):
        holds = 1 <= len(stop) <= MAX_STOP_CHARACTERS
        check.require(
            holds,
            f"sampling.stop[{number}]",
            f"{len(stop)} characters are out of range: use 1 to {MAX_STOP_CHARACTERS}",
        )
    count = len(sampling.stop_token_ids)
    holds = count <= MAX_STOP_TOKEN_IDS
    check.require(holds, "sampling.stop_token_ids", f"{count} entries are too many: use at most {MAX_STOP_TOKEN_IDS}")
    _check_ids(check, "sampling.stop_token_ids", sampling.stop_token_ids, vocabulary_size)


def _check_options(check: FieldCheck, options: generation_pb2.RequestOptions) -> None:
    policy, failover = options.on_disconnect.policy, options.failover
    known = policy in generation_pb2.DisconnectPolicy.values()
    check.require(known, "options.on_disconnect.policy", f"{policy} is not a policy: use CANCEL")
    known = failover in generation_pb2.FailoverPolicy.values()
    check.require(known, "options.failover", f"{failover} is not a policy: use NEVER")
    if options.HasField("max_duration"):
        duration_s = from_duration(options.max_duration)
        check.require(duration_s > 0, "options.max_duration", f"{duration_s:g} s is too short: use more than 0 s")
    holds = len(options.session_key) <= MAX_SESSION_KEY
    check.require(holds, "options.session_key", f"is too long: use at most {MAX_SESSION_KEY} characters")
    holds = -MAX_PRIORITY <= options.priority <= MAX_PRIORITY
    check.require(
        holds, "options.priority", f"{options.priority} is out of range: use [-{MAX_PRIORITY}, {MAX_PRIORITY}]"
    )
    _check_labels(check, options)


def _check_labels(check: FieldCheck, options: generation_pb2.RequestOptions) -> None:
    count = len(options.labels)
    _bound(check, "options.labels", count, MAX_LABELS)
    for key, value in sorted(options.labels.items()):
        where = f'options.labels["{key[:MAX_LABEL_KEY]}"]'
        check.require(1 <= len(key) <= MAX_LABEL_KEY, where, f"has a bad key: use 1 to {MAX_LABEL_KEY} characters")
        check.require(len(value) <= MAX_LABEL_VALUE, where, f"is too long: use at most {MAX_LABEL_VALUE} characters")


def _refuse_not_served(options: generation_pb2.RequestOptions) -> None:
    lacks = [
        FieldViolation(field, f"{what} is not served yet: {cure}")
        for holds, field, what, cure in (
            (options.on_disconnect.policy in _SERVED_POLICIES, "options.on_disconnect.policy", "DETACH", "use CANCEL"),
            (options.failover in _SERVED_FAILOVERS, "options.failover", "failover", "use NEVER"),
            (not options.HasField("resume"), "options.resume", "resuming", "leave it out"),
            (options.priority == 0, "options.priority", "priority", "leave it at 0"),
        )
        if not holds
    ]
    if lacks:
        raise NotServed("; ".join(f"{each.field}: {each.description}" for each in lacks), fields=lacks)


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else str(value)
