"""Renders conversations as the pieces of text that the model is trained on.

The text is the one of the chat template; a test compares them. It is written out here because the template cannot say
which part of its text the model should learn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engines.demo_model.corpus.turns import Conversation

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK_START, THINK_END = "<think>", "</think>"
NO_THOUGHT = f"{THINK_START}\n\n{THINK_END}\n\n"

Role = Literal["prompt", "history", "completion"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of rendered text that is tokenised by itself, and the part it plays in training."""

    text: str
    role: Role


def segments(conversation: Conversation) -> Iterator[Segment]:
    """Yields a conversation as the model is trained on it: prompt, completion, and what separates it from the next."""
    yield from prompt_segments(conversation)
    yield Segment(f"{conversation.completion()}{TURN_END}", "completion")
    yield Segment(f"\n{END_OF_TEXT}", "prompt")


def prompt_segments(conversation: Conversation) -> Iterator[Segment]:
    """Yields what precedes the completion, as the chat template renders it.

    Cut only next to a token that no other can merge with, so that the pieces have the same tokens as the whole.
    """
    for message in conversation.messages():
        if message["role"] == "assistant":
            yield Segment(f"{TURN_START}assistant\n", "prompt")
            yield Segment(f"{message['content']}{TURN_END}\n", "history")
        else:
            yield Segment(f"{TURN_START}{message['role']}\n{message['content']}{TURN_END}\n", "prompt")
    yield Segment(f"{TURN_START}assistant\n{'' if conversation.is_thinking else NO_THOUGHT}", "prompt")
