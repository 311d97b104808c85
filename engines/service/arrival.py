"""A request as it came: what of it is kept for as long as it is known. Without its prompt, which may be large."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from roundhouse.kit.times import from_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2

Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest
M = TypeVar("M", bound=Message)

DETACH_TTL_S = 60.0
_PROMPTS = ("prompt", "messages")


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who asks for what. `request` has neither prompt nor `resume`."""

    principal: str
    request_id: str
    request: Request = field(default_factory=inference_service_pb2.GenerateRequest)
    attempt: int = 1
    choice_count: int = 1
    words: bytes = b""  # a digest of the whole request that the client sent; none if nobody can know its id
    time_s: float = 0.0  # since 1970

    @property
    def key(self) -> str:
        """Names the request within the engine."""
        return key_of(self.principal, self.request_id)

    @property
    def options(self) -> generation_pb2.RequestOptions:
        """How it is treated on its way."""
        return self.request.options

    def repeats(self, request: Request, words: bytes) -> bool:
        """Tells whether a request with this id is the same once more, and can be told all that it wants."""
        told = all(mine or not its for mine, its in zip(_of_prompt(self.request), _of_prompt(request), strict=True))
        return bool(words) and words == self.words and told

    @property
    def detaches(self) -> bool:
        """Tells whether it goes on when nobody follows it."""
        return detaches(self.options)

    @property
    def ttl_s(self) -> float:
        """How long it does."""
        given = self.options.on_disconnect
        return from_duration(given.ttl) if given.HasField("ttl") else DETACH_TTL_S


def key_of(principal: str, request_id: str) -> str:
    """Returns the name of a request within the engine."""
    return f"{principal}/{request_id}"  # an id has no slash, so no two pairs give the same key


def detaches(options: generation_pb2.RequestOptions) -> bool:
    """Tells whether a request goes on when nobody follows it."""
    return options.on_disconnect.policy == generation_pb2.DISCONNECT_POLICY_DETACH


def _of_prompt(request: Request) -> tuple[bool, bool]:
    """Returns what is to be told of the prompt. A run that goes on need not tell it again."""
    echoes = isinstance(request, inference_service_pb2.GenerateRequest) and request.echo
    return echoes, request.sampling.HasField("prompt_logprobs")


def words_of(request: Request) -> bytes:
    """Returns a digest of what a request says. `max_duration` is not of it: each hop writes down what is left of it."""
    options = request.options
    with_duration = options.HasField("max_duration")
    kept_ns = options.max_duration.ToNanoseconds() if with_duration else 0
    options.ClearField("max_duration")
    try:
        digest = hashlib.sha256(request.DESCRIPTOR.name.encode())
        digest.update(request.SerializeToString(deterministic=True))
    finally:
        if with_duration:
            options.max_duration.FromNanoseconds(kept_ns)
    return digest.digest()


def without_prompt(request: Request) -> Request:
    """Returns a copy without prompt and `resume`. A field that is cleared goes on taking memory, so it is left out."""
    copy = _without(request, (*_PROMPTS, "options"))
    if request.HasField("options"):
        copy.options.CopyFrom(_without(request.options, ("resume",)))
    return copy


def _without(message: M, names: tuple[str, ...]) -> M:
    copy = type(message)()
    for each, value in message.ListFields():
        if each.name in names:
            continue
        if isinstance(value, Message):
            getattr(copy, each.name).CopyFrom(value)
        elif hasattr(value, "MergeFrom"):  # repeated, or a map
            getattr(copy, each.name).MergeFrom(value)
        else:
            setattr(copy, each.name, value)
    return copy
