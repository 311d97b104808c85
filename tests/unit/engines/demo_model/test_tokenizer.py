import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engines.demo_model import MODEL_DIR
from engines.demo_model.tokenizer import train_tokenizer

_SHIPPED = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


@pytest.mark.parametrize("text", ["2026", "12+7", "What is 305 - 17?", "a1b22c333"])
def test_digits_are_never_joined(text: str) -> None:
    tokens = _SHIPPED.encode(text).tokens

    assert [token for token in tokens if any(sign.isdigit() for sign in token)] == [
        sign for sign in text if sign.isdigit()
    ]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert _SHIPPED.decode(_SHIPPED.encode(text).ids, skip_special_tokens=False) == text


def test_think_tags_are_single_tokens_that_decoding_shows() -> None:
    encoding = _SHIPPED.encode("<think>\nOnes.\n</think>")

    assert encoding.tokens[0] == "<think>"
    assert encoding.tokens[-1] == "</think>"
    assert _SHIPPED.decode(encoding.ids, skip_special_tokens=True) == "<think>\nOnes.\n</think>"


def test_turn_tokens_are_single_and_hidden() -> None:
    encoding = _SHIPPED.encode("<|im_start|>user<|im_end|><|endoftext|>")

    assert encoding.tokens == ["<|im_start|>", "user", "<|im_end|>", "<|endoftext|>"]
    assert _SHIPPED.decode(encoding.ids, skip_special_tokens=True) == "user"


def test_training_on_the_same_texts_gives_the_same_tokenizer() -> None:
    texts = ["Once upon a time, there was a fox named Ruby."] * 50

    assert train_tokenizer(texts).to_str() == train_tokenizer(texts).to_str()
