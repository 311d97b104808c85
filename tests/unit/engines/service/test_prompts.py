"""Prompts become token ids beside the event loop."""

from __future__ import annotations

import asyncio
import threading

from engines.service import prompts
from roundhouse.v1 import generation_pb2
from tests.support.scripted_engine import CharacterTokenizer


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
        long = generation_pb2.ContentPart(text="x" * (prompts.THREAD_SIZE + 1))
        encoding = asyncio.create_task(prompts.encode_parts(tokenizer, [long]))
        await tokenizer.entered()
        encoding.cancel()
        await asyncio.gather(encoding, return_exceptions=True)

    asyncio.run(leave())
    assert not tokenizer.has_ended.is_set()
    tokenizer.go()
    assert tokenizer.has_ended.wait(10)
