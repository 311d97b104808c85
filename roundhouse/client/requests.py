"""Builds requests from what people write. What is out of range is for the server to say, alike for every language."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar

from roundhouse.kit.fields import invalid
from roundhouse.kit.times import to_duration
from roundhouse.v1 import generation_pb2

Prompt: TypeAlias = str | Sequence[int]
Turn: TypeAlias = generation_pb2.Message | tuple[str, str] | Mapping[str, str]
Messages: TypeAlias = str | Sequence[Turn]
Failover: TypeAlias = Literal["never", "exact", "approximate"]
Built = TypeVar("Built")

DETACH_S = 10.0  # long enough to come back after a gateway has died; not for an answer that nobody waits for

ROLES = {
    "system": generation_pb2.ROLE_SYSTEM,
    "user": generation_pb2.ROLE_USER,
    "assistant": generation_pb2.ROLE_ASSISTANT,
}
POLICIES: Mapping[str, generation_pb2.FailoverPolicy] = {
    "never": generation_pb2.FAILOVER_POLICY_NEVER,
    "exact": generation_pb2.FAILOVER_POLICY_EXACT_ONLY,
    "approximate": generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK,
}


class GenerationOptions(TypedDict, total=False):
    """How tokens are chosen and when to stop, as in `SamplingParams`, and how the call is made. None is as absent."""

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop: bool | None
    ignore_eos: bool | None
    logit_bias: Mapping[int, float] | None
    bad_words: str | Sequence[str] | None
    bad_token_runs: Sequence[Sequence[int]] | None
    n: int | None
    best_of: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    # At most one of these: the form that every output has to have.
    json_schema: str | Mapping[str, Any] | None
    json_object: bool | None
    regex: str | None
    choice: str | Sequence[str] | None
    ebnf: str | None
    # How the request is treated.
    priority: int | None
    resume: generation_pb2.Resume | None
    request_id: str | None  # drawn here if absent, so that the request can be cancelled by it from the start
    timeout_s: float | None  # the deadline of the whole request; none if absent
    max_duration_s: float | None  # of the request, also while nobody follows it; `timeout_s` if absent
    # How long the request goes on without us, up to an hour: 10 s if absent. 0 ends it when the connection breaks.
    detach_s: float | None
    failover: Failover | None  # whether another replica may go on: "exact" if absent
    session_key: str | None
    labels: Mapping[str, str] | None


_FORMS = ("json_schema", "json_object", "regex", "choice", "ebnf")
_OF_THE_CALL = (
    *("priority", "resume", "request_id", "timeout_s", "max_duration_s", "detach_s"),
    *("failover", "session_key", "labels"),
)


def sampling(options: GenerationOptions) -> generation_pb2.SamplingParams:
    """Returns the sampling part of the options; raises InvalidArgument for what the contract cannot hold."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    fields = {name: value for name, value in given.items() if name not in (*_FORMS, *_OF_THE_CALL)}
    for name in ("stop", "bad_words"):
        if isinstance(fields.get(name), str):  # else each of its letters would be one
            fields[name] = [fields[name]]
    if "bad_token_runs" in fields:
        fields["bad_token_runs"] = [{"ids": ids} for ids in fields["bad_token_runs"]]
    forms = [name for name in _FORMS if name in given and given[name] is not False]
    if len(forms) > 1:
        raise invalid("sampling.constraint", f"{' and '.join(forms)} are two forms: give one")
    if forms:
        fields["constraint"] = _constraint(forms[0], given[forms[0]])
    # A name that is none of the contract's is a ValueError here.
    return checked("sampling", lambda: generation_pb2.SamplingParams(**fields))


def request_options(options: GenerationOptions) -> generation_pb2.RequestOptions:
    """Returns how a request is treated; raises InvalidArgument for what the contract cannot hold."""
    detach_s, failover = options.get("detach_s"), options.get("failover")
    detach_s = DETACH_S if detach_s is None else detach_s
    if failover is not None and failover not in POLICIES:
        raise invalid("options.failover", f'"{failover}" is unknown: use one of {", ".join(POLICIES)}')
    # The deadline of a call does not bound a request that goes on without it.
    bound_s = options.get("max_duration_s") if detach_s == 0 else _first(options, "max_duration_s", "timeout_s")
    return checked(
        "options",
        lambda: generation_pb2.RequestOptions(
            on_disconnect=None if detach_s == 0 else _detaching(detach_s),
            max_duration=None if bound_s is None else to_duration(bound_s),
            failover=None if failover is None else POLICIES[failover],
            resume=options.get("resume"),
            session_key=options.get("session_key"),
            priority=options.get("priority"),
            labels=options.get("labels"),
        ),
    )


def _detaching(ttl_s: float) -> generation_pb2.OnDisconnect:
    return generation_pb2.OnDisconnect(policy=generation_pb2.DISCONNECT_POLICY_DETACH, ttl=to_duration(ttl_s))


def _first(options: GenerationOptions, *names: Literal["max_duration_s", "timeout_s"]) -> float | None:
    return next((options[name] for name in names if options.get(name) is not None), None)


def _constraint(form: str, value: Any) -> Mapping[str, Any]:
    if form == "json_object":
        return {form: {}}
    if form == "choice":
        return {form: {"texts": [value] if isinstance(value, str) else value}}
    return {form: json.dumps(value) if isinstance(value, Mapping) else value}


def prompt_parts(prompt: Prompt) -> list[generation_pb2.ContentPart]:
    """Returns a prompt of text or of token ids as content."""
    if isinstance(prompt, str):
        return [_text("prompt", prompt)]
    ids = checked("prompt", lambda: generation_pb2.TokenIds(ids=prompt))
    return [generation_pb2.ContentPart(token_ids=ids)]


def messages(conversation: Messages) -> list[generation_pb2.Message]:
    """Returns a conversation; a bare text is one message of the user. Raises InvalidArgument for an unknown role."""
    if isinstance(conversation, str):
        conversation = [("user", conversation)]
    return [_message(index, turn) for index, turn in enumerate(conversation)]


def _message(index: int, turn: Turn) -> generation_pb2.Message:
    if isinstance(turn, generation_pb2.Message):
        return turn
    role, text = (turn.get("role", ""), turn.get("content", "")) if isinstance(turn, Mapping) else turn
    if role not in ROLES:
        raise invalid(f"messages[{index}].role", f'"{role}" is unknown: use one of {", ".join(ROLES)}')
    return generation_pb2.Message(role=ROLES[role], content=[_text(f"messages[{index}].content", text)])


def _text(field: str, text: str) -> generation_pb2.ContentPart:
    return checked(field, lambda: generation_pb2.ContentPart(text=text))


def checked(field: str, build: Callable[[], Built]) -> Built:
    """Returns what `build` does; raises InvalidArgument that names the field if the contract cannot hold it."""
    try:  # protobuf raises ValueError for a number that does not fit and for text that is not Unicode
        return build()
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(field, f"{error}: the contract cannot carry it") from error
