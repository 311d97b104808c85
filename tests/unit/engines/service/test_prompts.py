"""Prompts become token ids beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from engines.service import prompts
from engines.service.beside import QUICK
from engines.service.served import Description
from engines.service.works import Given, works
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import generation_pb2
from tests.support.scripted_engine import refusal_of, scripted_engine, text_of
from tests.support.scripted_model import VOCABULARY_SIZE, CharacterTokenizer

SMALL = Description(
    model_type="scripted",
    parameter_count=1,
    dtype="float32",
    device="cpu",
    max_model_len=16,
    vocabulary_size=VOCABULARY_SIZE,
    block_size=16,
    end_token_ids=frozenset(),
    default_temperature=1.0,
    default_top_p=1.0,
    default_top_k=0,
)


class WatchedTokenizer(CharacterTokenizer):
    """Tells when it has ended with a text, encoded or not."""

    def __init__(self) -> None:
        super().__init__()
        self.has_ended = threading.Event()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        try:
            return super().encode(text, add_special_tokens=add_special_tokens)
        finally:
            self.has_ended.set()


def test_an_event_loop_that_ends_does_not_wait_for_a_prompt_that_is_still_being_tokenized() -> None:
    tokenizer = WatchedTokenizer()
    tokenizer.hold()

    async def leave() -> None:
        long = generation_pb2.ContentPart(text="x" * (QUICK + 1))
        encoding = asyncio.create_task(prompts.encode_parts(tokenizer, [long]))
        await tokenizer.entered()
        encoding.cancel()
        await asyncio.gather(encoding, return_exceptions=True)

    asyncio.run(leave())
    assert not tokenizer.has_ended.is_set()
    tokenizer.go()
    assert tokenizer.has_ended.wait(10)


@pytest.mark.parametrize("field", ["prompt", "messages"])
def test_text_that_gives_an_id_which_the_model_lacks_is_refused(field: str) -> None:
    def made(*ids: int) -> object:
        given = Given("key", ids, field)
        return works(given, generation_pb2.SamplingParams(), generation_pb2.RequestOptions(), SMALL)

    made(1, VOCABULARY_SIZE - 1)
    with pytest.raises(InvalidArgument, match=rf"{field}: .* id 128, .* \[0, 128\): leave out the text") as refused:
        made(1, VOCABULARY_SIZE, 2)
    assert [each.field for each in refused.value.fields] == [field]


async def test_a_text_that_the_model_lacks_an_id_for_does_not_reach_the_requests_beside_it() -> None:
    async with scripted_engine() as engine:
        engine.runner.hold()
        neighbour = engine.generate("abc", sampling={"max_tokens": 3})
        await engine.runner.entered(1)
        refused = await refusal_of(engine.generate("ab\u00e9"))
        engine.runner.go()
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ["prompt"])
        assert await text_of(neighbour) == "cde"
        await engine.all_ended()
