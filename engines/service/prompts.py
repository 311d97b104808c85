"""Makes token ids of what a request says, and text of ids, beside the event loop if there is much of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from engines.service.beside import encoding
from engines.service.served import Tokenizer
from roundhouse.kit.errors import NotReady
from roundhouse.v1 import errors_pb2, generation_pb2

TURN_SIZE = 32  # what a template and its marks add to each message

_ROLES: Mapping[int, str] = {
    generation_pb2.ROLE_SYSTEM: "system",
    generation_pb2.ROLE_USER: "user",
    generation_pb2.ROLE_ASSISTANT: "assistant",
}


async def encode_parts(tokenizer: Tokenizer, parts: Sequence[generation_pb2.ContentPart]) -> tuple[int, ...]:
    """Returns the ids of a prompt. Texts side by side are one text; special tokens are added to the first part only."""
    size = sum(len(part.text) + len(part.token_ids.ids) for part in parts)
    return await encoding(lambda: _encode_parts(tokenizer, parts), size)


async def encode_messages(tokenizer: Tokenizer, messages: Sequence[generation_pb2.Message]) -> tuple[int, ...]:
    """Returns the ids of a conversation.

    Raises NotReady if the model has no chat template, InvalidArgument if the template refuses it.
    """
    if not tokenizer.has_chat_template:
        message = "the model has no chat template: use Generate"
        raise NotReady(message, reason=errors_pb2.ERROR_REASON_CHAT_TEMPLATE_MISSING)
    turns = [(_ROLES[message.role], "".join(part.text for part in message.content)) for message in messages]
    size = sum(TURN_SIZE + len(text) for _, text in turns)
    return await encoding(lambda: tuple(tokenizer.render_chat(turns)), size)


async def bad_runs(tokenizer: Tokenizer, sampling: generation_pb2.SamplingParams) -> tuple[tuple[int, ...], ...]:
    """Returns the runs of ids that are never to be completed."""

    def spell() -> list[tuple[int, ...]]:
        return [run for word in sampling.bad_words for run in tokenizer.spellings(word)]

    spelled = await encoding(spell, sum(map(len, sampling.bad_words)))
    return tuple(dict.fromkeys([*spelled, *(tuple(run.ids) for run in sampling.bad_token_runs)]))


async def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Returns the text of ids."""
    return await encoding(lambda: tokenizer.decode(ids), len(ids))


def _encode_parts(tokenizer: Tokenizer, parts: Sequence[generation_pb2.ContentPart]) -> tuple[int, ...]:
    ids: list[int] = []
    for kind, group in groupby(parts, key=lambda part: part.WhichOneof("part")):
        if kind == "text":
            text = "".join(part.text for part in group)
            ids += tokenizer.encode(text, add_special_tokens=not ids)
        else:
            ids += [token for part in group for token in part.token_ids.ids]
    return tuple(ids)
