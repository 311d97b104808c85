"""A first look: one answer, one request that is cancelled in mid-stream, and what to go on with."""

from __future__ import annotations

from rich.padding import Padding
from rich.text import Text

from roundhouse.cli.answers import CutShort, summary
from roundhouse.cli.cancel import receipt_table
from roundhouse.cli.output import to_dict
from roundhouse.cli.up.story import MARGIN, Story
from roundhouse.client import Client, Generation
from roundhouse.client.names import enum_name
from roundhouse.v1 import generation_pb2, receipt_pb2

QUESTION = "What is 12 + 7?"
WISH = "Tell me a story."
ASKED_TOKENS = 1500  # of a context of 2048, so that a request that nobody cancels would run for long
CANCEL_AFTER_TOKENS = 32


async def tour(story: Story, client: Client, deployment: str) -> None:
    """Shows an answer and a cancel; raises CutShort if the cancel did not do what it has to."""
    await _answer(story, client, deployment)
    await _cancel(story, client, deployment)


async def _answer(story: Story, client: Client, deployment: str) -> None:
    story.speech("you").write(QUESTION).end()
    speech, texts = story.speech(deployment), []
    async with client.chat(deployment, QUESTION) as generation:
        async for delta in generation:
            texts.append(delta.text)
            speech.write(delta.text)
    speech.end()
    _note(story, summary(generation))
    story.tell("answered", question=QUESTION, text="".join(texts), request_id=generation.request_id)


async def _cancel(story: Story, client: Client, deployment: str) -> None:
    story.speech("you").write(f"{WISH} (for {ASKED_TOKENS} tokens, past any end)").end()
    speech = story.speech(deployment)
    receipt: receipt_pb2.CancelReceipt | None = None
    count = 0
    async with client.chat(deployment, WISH, ignore_eos=True, max_tokens=ASKED_TOKENS) as generation:
        async for delta in generation:
            count += len(delta.token_ids)
            if receipt is None:
                speech.write(delta.text)
            if count >= CANCEL_AFTER_TOKENS and receipt is None:
                receipt = await client.cancel(deployment, generation.request_id, generation.location)
    speech.write(" …").end()
    if receipt is None:
        raise CutShort(f"the request ended after {count} tokens, before it could be cancelled")
    _note(story, "cancelled in mid-stream, by its id, over a call of its own")
    story.tell("cancelled", Padding(receipt_table(receipt), (0, 2, 1, MARGIN)), receipt=to_dict(receipt))
    _check(receipt, generation)


def _check(receipt: receipt_pb2.CancelReceipt, generation: Generation) -> None:
    outcome = enum_name(receipt_pb2.CancelOutcome, receipt.outcome)
    freed = receipt.free_block_count - receipt.free_block_count_before
    finished = generation.finished
    faults = {
        f"its outcome is {outcome}": receipt.outcome != receipt_pb2.CANCEL_OUTCOME_CANCELLED,
        f"it ran to its {receipt.output_token_count} tokens": receipt.output_token_count >= ASKED_TOKENS,
        f"it freed {receipt.freed_block_count} blocks, the cache counted {freed}": receipt.freed_block_count != freed,
        "it freed no blocks": freed <= 0,
        "its stream did not end as cancelled": (
            finished is None or finished.reason != generation_pb2.FINISH_REASON_CANCELLED
        ),
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    if found:
        raise CutShort(f"the cancel of request {receipt.request_id} is not what it has to be: {'; '.join(found)}")


def _note(story: Story, text: str) -> None:
    story.tell("note", Text(f"{' ' * MARGIN}{text}\n", style="dim"), text=text)
