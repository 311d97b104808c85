import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engines.text.decode import Decoder
from tests.support.tiny_models import BEGIN, END, byte_fallback_tokenizer, byte_level_tokenizer

BYTE_LEVEL, BYTE_FALLBACK = byte_level_tokenizer(), byte_fallback_tokenizer()
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte-level", "byte-fallback"])
TEXT = "the fox costs 10 € — 日本語, 🦊🦊🦊, naïve.  \n\tÜber the dog"


def id_of(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number


def decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    hidden = {id_of(tokenizer, token) for token in (END, BEGIN)}
    decoder = Decoder(lambda window: decode(tokenizer, list(window)), hidden)
    return [*[decoder.write(token) for token in ids], decoder.close()]


@TOKENIZERS
def test_the_pieces_are_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    written = pieces(tokenizer, ids)
    assert "".join(written) == decode(tokenizer, ids) == TEXT
    assert "\ufffd" not in "".join(written)


@TOKENIZERS
@settings(deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.text(alphabet="\ufffd日🦊éa ", max_size=14)))
@example(text="\ufffd日本語の")
@example(text="日\ufffd\ufffd€" + "\ufffd" * 14 + "🦊")
def test_the_pieces_of_any_text_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(pieces(tokenizer, ids)) == decode(tokenizer, ids)


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 330), max_size=300))
@example(ids=[id_of(BYTE_LEVEL, "ð")] * 300)
@example(ids=BYTE_LEVEL.encode("🦊" * 40, add_special_tokens=False).ids[:-1])
def test_the_pieces_of_any_ids_are_what_all_of_them_decode_to(ids: list[int]) -> None:
    assert "".join(pieces(BYTE_LEVEL, ids)) == decode(BYTE_LEVEL, ids)


@settings(deadline=None)
@given(text=st.text(alphabet="é€🦊日a ", max_size=30))
def test_no_piece_ends_within_a_character(text: str) -> None:
    written = pieces(BYTE_LEVEL, BYTE_LEVEL.encode(text, add_special_tokens=False).ids)
    assert [char for piece in written for char in piece] == list(text)


@TOKENIZERS
def test_a_character_comes_with_its_last_byte(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🦊", add_special_tokens=False).ids
    written = pieces(tokenizer, ids)
    assert written[-2:] in (["🦊", ""], ["a🦊", ""])


@TOKENIZERS
def test_special_tokens_have_no_text_and_take_no_space_away(tokenizer: Tokenizer) -> None:
    end = id_of(tokenizer, END)
    ids = tokenizer.encode("the fox", add_special_tokens=False).ids
    mixed = [end, *[each for token in ids for each in (token, end)]]
    assert "".join(pieces(tokenizer, mixed)) == decode(tokenizer, mixed) == "the fox"


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    ids = BYTE_LEVEL.encode("a🦊", add_special_tokens=False).ids
    cut = ids[:-1]
    written = pieces(BYTE_LEVEL, cut)
    assert "".join(written) == decode(BYTE_LEVEL, cut)
    assert written[-1] == "\ufffd"


def test_a_run_that_never_becomes_text_does_not_grow_what_is_decoded() -> None:
    lengths = []

    def measured(ids: list[int]) -> str:
        lengths.append(len(ids))
        return decode(BYTE_LEVEL, ids)

    decoder = Decoder(lambda window: measured(list(window)))
    for _ in range(1000):
        decoder.write(id_of(BYTE_LEVEL, "ð"))
    assert max(lengths) <= 64
