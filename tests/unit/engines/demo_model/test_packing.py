from random import Random

import pytest
from tokenizers import Tokenizer

from engines.demo_model import MODEL_DIR
from engines.demo_model.packing import pack_row

_TOKENIZER = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
_IDS = _TOKENIZER.get_vocab()
_TURN_START, _TURN_END, _END_OF_TEXT = _IDS["<|im_start|>"], _IDS["<|im_end|>"], _IDS["<|endoftext|>"]


@pytest.mark.parametrize("length", [256, 1024, 2048])
def test_a_row_is_full_and_begins_with_a_conversation(length: int) -> None:
    ids, weights = pack_row(Random(1), _TOKENIZER, length)

    assert len(ids) == len(weights) == length
    assert ids[0] == _TURN_START
    assert all(0 <= weight <= 1 for weight in weights)


def test_a_long_row_begins_with_one_long_conversation() -> None:
    random = Random(2)
    first_ends = [pack_row(random, _TOKENIZER, 2048)[0].index(_END_OF_TEXT) for _ in range(10)]

    assert max(first_ends) > 1024


def test_what_is_learnt_most_are_whole_answers_with_their_end() -> None:
    ids, weights = pack_row(Random(3), _TOKENIZER, 256)
    learnt = [token for token, weight in zip(ids, weights, strict=True) if weight == 1]
    ends = learnt.count(_TURN_END)

    assert ends >= 2
    assert _TURN_START not in learnt


def test_where_an_answer_of_the_history_starts_is_not_learnt() -> None:
    ids, weights = pack_row(Random(4), _TOKENIZER, 2048)
    unlearnt = [place for place, weight in enumerate(weights) if weight == 0]
    turn_start = _TOKENIZER.encode("<|im_start|>assistant\n").ids

    assert unlearnt
    for place in unlearnt:
        assert ids[place - len(turn_start) : place] == turn_start
