from random import Random
from typing import cast

import jinja2
import pytest
from transformers import PreTrainedTokenizerFast

from engines.demo_model import MODEL_DIR
from engines.demo_model.corpus import conversations
from engines.demo_model.rendering import prompt_segments, segments


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(MODEL_DIR))


def test_the_template_renders_what_the_model_was_trained_on(tokenizer: PreTrainedTokenizerFast) -> None:
    random = Random(1)
    for _ in range(500):
        conversation = conversations.conversation(random)
        rendered = tokenizer.apply_chat_template(
            conversation.messages(),
            add_generation_prompt=True,
            enable_thinking=conversation.is_thinking,
            tokenize=False,
        )
        assert rendered == "".join(segment.text for segment in prompt_segments(conversation))


def test_thinking_is_off_unless_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hello"}]

    silent = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    thinking = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=True, tokenize=False)

    assert silent == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert thinking == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_pieces_have_the_tokens_of_the_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    random = Random(2)
    for _ in range(200):
        pieces = list(prompt_segments(conversations.of_turns(random, 3)))
        whole = tokenizer("".join(piece.text for piece in pieces))["input_ids"]
        assert [token for piece in pieces for token in tokenizer(piece.text)["input_ids"]] == whole


def test_a_conversation_ends_with_the_end_token_and_the_separator() -> None:
    conversation = conversations.of_turns(Random(3), 1, is_thinking=True)

    prompt, generation, completion, separator = segments(conversation)

    assert prompt.text.startswith("<|im_start|>")
    assert generation.text == "<|im_start|>assistant\n"
    assert completion.text.startswith("<think>\n")
    assert completion.text.endswith("<|im_end|>")
    assert separator.text == "\n<|endoftext|>"


def test_the_thoughts_of_earlier_turns_are_dropped(tokenizer: PreTrainedTokenizerFast) -> None:
    rendered = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "1 + 1"},
            {"role": "assistant", "content": "<think>\nOnes: 1 + 1 = 2.\n</think>\n\n1 + 1 = 2."},
            {"role": "user", "content": "Thanks"},
        ],
        tokenize=False,
    )

    assert "<|im_start|>assistant\n1 + 1 = 2.<|im_end|>\n" in rendered
    assert "think" not in rendered


def test_an_unknown_role_is_refused_by_name(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(jinja2.TemplateError, match='unknown role "tool"'):
        tokenizer.apply_chat_template([{"role": "tool", "content": "4"}], tokenize=False)
