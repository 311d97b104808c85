from random import Random

import pytest
from tokenizers import Tokenizer

from engines.demo_model import MODEL_DIR
from engines.demo_model.corpus import conversations
from engines.demo_model.exam import length_questions, prompt_token_count, task_questions

_TOKENIZER = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def test_every_task_gets_its_questions_in_the_mode_that_was_asked_for() -> None:
    questions = list(task_questions(Random(1), 2, is_thinking=True))

    topics = {*conversations.TASKS, "subtraction_below_zero", "name_recall", "unseen_phrasing"}
    assert {question.topic for question in questions} == topics
    assert all(question.conversation.is_thinking for question in questions)


def test_a_question_accepts_the_answer_of_the_corpus_and_no_other() -> None:
    for question in task_questions(Random(2), 2, is_thinking=False):
        assert question.accepts(question.conversation.turns[-1].answer)
        if question.topic != "story":  # any text is a story when nothing was asked of it
            assert not question.accepts("")


@pytest.mark.parametrize("length", [128, 1024])
def test_a_question_at_a_length_fills_the_prompt_but_never_beyond(length: int) -> None:
    for question in length_questions(Random(3), _TOKENIZER, length, 4):
        assert length * 0.6 < prompt_token_count(_TOKENIZER, question.conversation) <= length
