"""What a request to an engine may say: every bound of the contract, every violation named at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engines.service.arrival import Request, detaches
from engines.service.resume_checks import check_resume
from engines.service.sampling_checks import check_ids, check_sampling
from engines.service.works import sent_count
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2

MAX_MESSAGES = 4096  # what is checked one by one must not hold up other streams: these take a few milliseconds
MAX_PARTS = 4096  # over all messages
MAX_LABELS = 16
MAX_LABEL_KEY = 63
MAX_LABEL_VALUE = 255
MAX_SESSION_KEY = 255
MAX_PRIORITY = 100
MAX_PAGE_SIZE = 1000
MAX_TTL_S = 3600.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_ROLES = frozenset({generation_pb2.ROLE_SYSTEM, generation_pb2.ROLE_USER, generation_pb2.ROLE_ASSISTANT})

Naming = (
    inference_service_pb2.AttachRequest
    | inference_service_pb2.GetRequestRequest
    | inference_service_pb2.CancelRequestRequest
)


def check_generate(request: inference_service_pb2.GenerateRequest, vocabulary_size: int) -> None:
    """Raises InvalidArgument with all that is wrong."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=False)
    if _brings_prompt(request):
        _check_absent(check, "prompt", any(part.text or part.token_ids.ids for part in request.prompt[:MAX_PARTS]))
    else:
        _check_parts(check, "prompt", request.prompt, vocabulary_size)
    _check_common(check, request, vocabulary_size)


def check_chat(request: inference_service_pb2.ChatRequest, vocabulary_size: int) -> None:
    """Raises InvalidArgument with all that is wrong."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=False)
    if _brings_prompt(request):
        _check_absent(check, "messages", len(request.messages) > 0)
    else:
        _check_messages(check, request.messages)
    _check_common(check, request, vocabulary_size)


def check_named(request: Naming) -> None:
    """Raises InvalidArgument with all that is wrong with what only names a request."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    _check_request_id(check, request.request_id, required=True)
    check.raise_if_any()


def check_attach(request: inference_service_pb2.AttachRequest, sampling: generation_pb2.SamplingParams) -> None:
    """Raises InvalidArgument with all that does not fit the request which is to be followed."""
    check = FieldCheck()
    count = sent_count(sampling)
    _bound(check, "after", len(request.after), count)
    seen: set[int] = set()
    for number, each in enumerate(request.after):
        field = f"after[{number}]"
        holds = 0 <= each.choice < count
        check.require(holds, f"{field}.choice", f"{each.choice} is out of range: use 0 to {count - 1}, by n")
        check.require(each.choice not in seen, f"{field}.choice", f"{each.choice} is there twice: name each once")
        seen.add(each.choice)
        holds, field = each.output_token_count >= 0, f"{field}.output_token_count"
        check.require(holds, field, f"{each.output_token_count} is below 0: use 0 or more")
    check.raise_if_any()


def check_list(request: inference_service_pb2.ListRequestsRequest) -> None:
    """Raises InvalidArgument with all that is wrong, but for the token."""
    check = FieldCheck()
    _check_target(check, request.deployment)
    holds = 0 <= request.page_size <= MAX_PAGE_SIZE
    check.require(holds, "page_size", f"{request.page_size} is out of range: use 0 to {MAX_PAGE_SIZE}")
    check.raise_if_any()


def _check_messages(check: FieldCheck, messages: Sequence[generation_pb2.Message]) -> None:
    _check_size(check, messages)
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        known = message.role in _ROLES
        check.require(known, f"{where}.role", f"{message.role} is not a role: use SYSTEM, USER or ASSISTANT")
        _check_parts(check, f"{where}.content", message.content, None)


def _check_common(check: FieldCheck, request: Request, vocabulary_size: int) -> None:
    check_sampling(check, request.sampling, vocabulary_size)
    _check_options(check, request.options)
    if request.options.HasField("resume"):
        check_resume(check, request.options.resume, request.sampling, vocabulary_size)
    check.raise_if_any()


def _brings_prompt(request: Request) -> bool:
    return request.options.resume.HasField("prompt_token_ids")


def _check_absent(check: FieldCheck, field: str, is_given: bool) -> None:
    check.require(not is_given, field, "is given, and resume brings a prompt: leave one of the two out")


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
            check_ids(check, f"{where}.token_ids.ids", part.token_ids.ids, vocabulary_size)
        has_content = has_content or bool(part.text) or len(part.token_ids.ids) > 0
    check.require(has_content, field, "has no content: give at least one part that is not empty")


def _check_options(check: FieldCheck, options: generation_pb2.RequestOptions) -> None:
    policy, failover = options.on_disconnect.policy, options.failover
    known = policy in generation_pb2.DisconnectPolicy.values()
    check.require(known, "options.on_disconnect.policy", f"{policy} is not a policy: use CANCEL or DETACH")
    if detaches(options) and options.on_disconnect.HasField("ttl"):
        ttl_s = from_duration(options.on_disconnect.ttl)
        what = f"{ttl_s:g} s is out of range: use more than 0 s and at most {MAX_TTL_S:g} s"
        check.require(0 < ttl_s <= MAX_TTL_S, "options.on_disconnect.ttl", what)
    known = failover in generation_pb2.FailoverPolicy.values()
    check.require(known, "options.failover", f"{failover} is not a policy: use NEVER, APPROXIMATE_OK or EXACT_ONLY")
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
