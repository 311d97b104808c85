"""Reads off a request what decides where it goes. Cheap: nothing is tokenized, and long prompts are cut coarsely.

Hashes of prefixes are Python's own, which cost next to nothing: their key is drawn by each process, so no other knows
them. The front alone has a digest that all gateways find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from controlplane.gateway.routing.asked import FRONT_TOKENS, Asked
from roundhouse.v1.generation_pb2 import ContentPart, RequestOptions, SamplingParams
from roundhouse.v1.inference_service_pb2 import ChatRequest, GenerateRequest

# Text is cut into pieces of 256 characters, and from the 33rd on of 2,048: 200,000 characters are 127 pieces. What lies
# behind is not told apart.
PIECE, LONG_PIECE, SHORT_COUNT, MOST_PIECES = 256, 2048, 32, 128
LEAST_TOKENS = 64  # from one cut to the next: less is not worth going anywhere for, and engines cache whole blocks
ASCII_PER_TOKEN, OTHERS_PER_TOKEN = 4, 1.5  # characters, as tokenizers of today have it on average
MESSAGE_TOKENS = 4  # that a template puts around a message


def asked_of(request: GenerateRequest | ChatRequest) -> Asked:
    """Returns what of a request decides where it goes."""
    sampling, options = request.sampling, request.options
    resumed = sum(len(each.output_token_ids.ids) for each in options.resume.choices)
    cuts = _Cuts()
    if options.resume.prompt_token_ids.ids:
        cuts.add_ids(options.resume.prompt_token_ids.ids)
    elif isinstance(request, GenerateRequest):
        cuts.add(request.prompt)
    else:
        for message in request.messages:
            cuts.add_role(message.role)
            cuts.add(message.content)
    return Asked(
        token_count=int(cuts.token_count) + resumed,
        max_tokens=_max_tokens(sampling, options, resumed),
        choice_count=_choices(sampling),
        session_key=options.session_key,
        prefixes=tuple(cuts.hashes),
        prefix_token_counts=tuple(cuts.counts),
        front=cuts.front,
    )


class _Cuts:
    """Where a prompt is cut, and what lies before each cut."""

    def __init__(self) -> None:
        self.hashes: list[int] = []
        self.counts: list[int] = []
        self.token_count = 0.0
        self.front = ""
        self._hash = 0
        self._digest = blake2b(digest_size=16)

    def add(self, parts: Iterable[ContentPart]) -> None:
        for part in parts:
            if part.WhichOneof("part") == "token_ids":
                self.add_ids(part.token_ids.ids)
            else:
                self._add_text(part.text)

    def add_role(self, role: int) -> None:
        self._hash = hash((self._hash, role))
        self._digest.update(b"\0%d" % role)
        self.token_count += MESSAGE_TOKENS

    def add_ids(self, ids: Iterable[int]) -> None:
        ids = tuple(ids)
        for begin, end in self._spans(len(ids), ASCII_PER_TOKEN):
            self._cut(ids[begin:end], end - begin)

    def _add_text(self, text: str) -> None:
        per_token = ASCII_PER_TOKEN if text.isascii() else OTHERS_PER_TOKEN
        for begin, end in self._spans(len(text), 1):
            self._cut(text[begin:end], (end - begin) / per_token)

    def _spans(self, length: int, shrink: int) -> Iterator[tuple[int, int]]:
        begin = 0
        while begin < length:
            size = (PIECE if len(self.hashes) < SHORT_COUNT else LONG_PIECE) // shrink
            if len(self.hashes) == MOST_PIECES - 1:
                size = length  # the last one has all that is left
            yield begin, min(length, begin + size)
            begin += size

    def _cut(self, piece: object, token_count: float) -> None:
        self.token_count += token_count
        if not self.front:
            self._digest.update(repr(piece).encode("ascii", "backslashreplace"))
            if self.token_count >= FRONT_TOKENS:
                self.front = self._digest.hexdigest()
        if len(self.hashes) < MOST_PIECES:
            self._hash = hash((self._hash, piece))
            if self.token_count - (self.counts[-1] if self.counts else 0) >= LEAST_TOKENS:
                self.hashes.append(self._hash)
                self.counts.append(int(self.token_count))


def _max_tokens(sampling: SamplingParams, options: RequestOptions, resumed: int) -> int | None:
    if not sampling.HasField("max_tokens"):
        return None
    choices = max(1, len(options.resume.choices))
    return max(0, sampling.max_tokens - resumed // choices)


def _choices(sampling: SamplingParams) -> int:
    """Returns how many sequences are computed; engines refuse what is out of range."""
    return max(1, sampling.best_of, sampling.n)
