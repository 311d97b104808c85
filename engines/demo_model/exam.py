"""Sets the questions that the demo model is scored on, and says which answers are right. Knows no tensors.

Seeds are fresh. Sums and differences are of pairs that training never saw; facts are by nature the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from engines.demo_model.corpus import arithmetic, conversations
from engines.demo_model.corpus.off_topic import REFUSAL
from engines.demo_model.corpus.turns import Conversation, MakeTurn, Turn
from engines.demo_model.corpus.words import a_name
from engines.demo_model.rendering import prompt_segments

# Topics that do not ask what the corpus asks: pairs of numbers kept from training, and the two kinds of differences.
_HELD_OUT: Mapping[str, MakeTurn] = {
    "addition": lambda random: arithmetic.addition(random, held_out=True),
    "large_addition": lambda random: arithmetic.large_addition(random, held_out=True),
    "subtraction": lambda random: _subtraction(random, is_below_zero=False),
    "subtraction_below_zero": lambda random: _subtraction(random, is_below_zero=True),
}

# Written by hand, in words that no template of the corpus uses.
_UNSEEN_PHRASINGS: Sequence[tuple[str, str]] = (
    ("hey what's 12 + 30", "42"),
    ("Could you add 14 and 9 for me?", "23"),
    ("i need the sum of 40 and 21", "61"),
    ("Give me 8 times 7", "56"),
    ("What do I get if I take 12 from 50?", "38"),
    ("6 * 9 please", "54"),
    ("Do you know the capital of Japan?", "Tokyo"),
    ("What's the capital city of Spain?", "Madrid"),
    ("Germany's capital?", "Berlin"),
    ("Can you tell me the capital of Norway, please?", "Oslo"),
    ("Give me the opposite of big", "small"),
    ("What noise does a cow make?", "moo"),
    ("Which day follows Tuesday?", "Wednesday"),
    ("Spell the name Oscar for me", "O-S-C-A-R"),
    ("Count up from 3 to 7", "3, 4, 5, 6, 7"),
    ("I would like a story about a penguin", "penguin"),
    ("Make up a story about a wolf named Nora", "Nora"),
    ("So, who are you exactly?", "demo model"),
    ("What's Roundhouse?", "gRPC"),
    ("I want to cancel a request. How?", "roundhouse cancel"),
    ("Write me an opera about thunder", REFUSAL),
    ("Compute the integral of x squared", REFUSAL),
    ("What should I wear tomorrow?", REFUSAL),
    ("List the planets", REFUSAL),
)


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation to go on with, and the topic it is scored under."""

    topic: str
    conversation: Conversation

    def accepts(self, answer: str) -> bool:
        """Says whether an answer, without its thought, is right."""
        return self.conversation.turns[-1].accepts(answer)


def task_questions(random: Random, count: int, *, is_thinking: bool) -> Iterator[Question]:
    """Yields so many questions of every task of the corpus, and those in unseen words once."""
    corpus = {task: make_turn for task, (_, make_turn) in conversations.TASKS.items()}
    for topic, make_turn in {**corpus, **_HELD_OUT}.items():
        for _ in range(count):
            yield Question(topic, Conversation(topic, (make_turn(random),), is_thinking))
    for _ in range(count):
        asked = conversations.name_recall(random, distance=random.randrange(4), is_thinking=is_thinking)
        yield Question(conversations.NAME_RECALL, asked)
    for prompt, wanted in _UNSEEN_PHRASINGS:
        turn = Turn(prompt, "", wanted, must_hold=(wanted,))
        yield Question("unseen_phrasing", Conversation("unseen_phrasing", (turn,), is_thinking))


def length_questions(random: Random, tokenizer: Tokenizer, length: int, count: int) -> Iterator[Question]:
    """Yields questions at the end of conversations that fill up to so many tokens, without thinking.

    Half of them stand for themselves (a sum), half ask for the name that the first turn gave.
    """
    for _ in range(count):
        addition = arithmetic.addition(random, held_out=True)
        yield Question("sum", _filled(random, tokenizer, length, (), addition))
        name = a_name(random)
        told = Turn(f"My name is {name}.", "", f"Nice to meet you, {name}!")
        asked = Turn("What is my name?", "", f"Your name is {name}.")
        yield Question("name", _filled(random, tokenizer, length, (told,), asked))


def _subtraction(random: Random, *, is_below_zero: bool) -> Turn:
    while True:
        turn = arithmetic.subtraction(random, held_out=True)
        if ("= -" in turn.answer) == is_below_zero:
            return turn


def _filled(
    random: Random, tokenizer: Tokenizer, length: int, opening: tuple[Turn, ...], question: Turn
) -> Conversation:
    fitting = Conversation("length", (*opening, question), is_thinking=False)
    while True:
        between = conversations.of_turns(random, 1).turns
        longer = Conversation("length", (*fitting.turns[:-1], *between, question), is_thinking=False)
        if prompt_token_count(tokenizer, longer) > length:
            return fitting
        fitting = longer


def prompt_token_count(tokenizer: Tokenizer, conversation: Conversation) -> int:
    """Returns how many tokens the model reads before it answers."""
    return sum(len(tokenizer.encode(segment.text).ids) for segment in prompt_segments(conversation))
