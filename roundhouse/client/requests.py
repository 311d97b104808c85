"""Builds requests from what people write. What is out of range is for the server to say, alike for every language."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypedDict, TypeVar

from roundhouse.kit.fields import invalid
from roundhouse.v1 import generation_pb2

Prompt: TypeAlias = str | Sequence[int]
Turn: TypeAlias = generation_pb2.Message | tuple[str, str] | Mapping[str, str]
Messages: TypeAlias = str | Sequence[Turn]
Built = TypeVar("Built")

ROLES = {
    "system": generation_pb2.ROLE_SYSTEM,
    "user": generation_pb2.ROLE_USER,
    "assistant": generation_pb2.ROLE_ASSISTANT,
}


class GenerationOptions(TypedDict, total=False):
    """How tokens are chosen and when to stop, as in `SamplingParams`, and how the call is made. None is as absent."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    request_id: str | None  # drawn here if absent, so that the request can be cancelled by it from the start
    timeout_s: float | None  # the deadline of the whole request; none if absent


def sampling(options: GenerationOptions) -> generation_pb2.SamplingParams:
    """Returns the sampling part of the options; raises InvalidArgument for a number that the contract cannot hold."""
    stop = options.get("stop", ())
    return _checked(
        "sampling",
        lambda: generation_pb2.SamplingParams(
            max_tokens=options.get("max_tokens"),
            temperature=options.get("temperature"),
            top_p=options.get("top_p"),
            top_k=options.get("top_k"),
            seed=options.get("seed"),
            stop=[stop] if isinstance(stop, str) else stop,
            stop_token_ids=options.get("stop_token_ids"),
            ignore_eos=options.get("ignore_eos", False),
        ),
    )


def prompt_parts(prompt: Prompt) -> list[generation_pb2.ContentPart]:
    """Returns a prompt of text or of token ids as content."""
    if isinstance(prompt, str):
        return [_text("prompt", prompt)]
    ids = _checked("prompt", lambda: generation_pb2.TokenIds(ids=prompt))
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
    return _checked(field, lambda: generation_pb2.ContentPart(text=text))


def _checked(field: str, build: Callable[[], Built]) -> Built:
    """Builds a message; protobuf raises ValueError for a number that does not fit and for text that is not Unicode."""
    try:
        return build()
    except ValueError as error:
        raise invalid(field, f"{error}: the contract cannot carry it") from error
