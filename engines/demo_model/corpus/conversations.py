"""Mixes tasks into conversations: mostly one turn, sometimes several, sometimes very many."""

from collections.abc import Mapping
from random import Random

from engines.demo_model.corpus import arithmetic, facts, off_topic, small_talk, stories, texts
from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Conversation, MakeTurn, Turn
from engines.demo_model.corpus.words import a_name

# Task to (share of the corpus, maker). Shares follow how hard a task is to learn, not how often people ask for it.
TASKS: Mapping[str, tuple[float, MakeTurn]] = {
    "addition": (15.0, arithmetic.addition),
    "large_addition": (5.0, arithmetic.large_addition),
    "subtraction": (9.0, arithmetic.subtraction),
    "multiplication": (5.0, arithmetic.multiplication),
    "comparison": (3.0, arithmetic.comparison),
    "capital": (4.0, facts.capital),
    "country_of_capital": (1.0, facts.country_of_capital),
    "opposite": (2.0, facts.opposite),
    "sound": (1.0, facts.sound),
    "colour": (1.0, facts.colour),
    "weekday": (1.0, facts.weekday),
    "number_word": (1.5, facts.number_word),
    "counting": (2.0, texts.counting),
    "spelling": (4.0, texts.spelling),
    "repetition": (5.0, texts.repetition),
    "json_object": (3.5, texts.json_object),
    "reading": (6.0, texts.reading),
    "story": (8.0, stories.story),
    "greeting": (4.0, small_talk.greeting),
    "roundhouse": (4.5, small_talk.roundhouse),
    "off_topic": (14.0, off_topic.off_topic),
}
NAME_RECALL = "name_recall"

_SYSTEMS = (
    "You are a helpful assistant.",
    "You are Roundhouse's demo model.",
    "You are a tiny assistant. Be brief.",
    "Answer the user's question.",
    "You are a friendly assistant. Answer in English.",
)
_NAME_QUESTIONS = ("What is my name?", "Who am I?", "Do you remember my name?", "What's my name?")


def conversation(random: Random) -> Conversation:
    """Makes one conversation of the training mixture."""
    if random.random() < 0.04:
        return name_recall(random, distance=random.randrange(0, 4))
    if random.random() < 0.15:
        return of_turns(random, random.randrange(2, 6))
    return of_turns(random, 1)


def of_turns(random: Random, count: int, *, is_thinking: bool | None = None) -> Conversation:
    """Makes a conversation of so many unrelated turns; half of them think, unless told."""
    names = random.choices(list(TASKS), weights=[share for share, _ in TASKS.values()], k=count)
    turns = tuple(TASKS[name][1](random) for name in names)
    return Conversation(names[-1], turns, _or_toss(random, is_thinking), _system(random))


def name_recall(random: Random, *, distance: int, is_thinking: bool | None = None) -> Conversation:
    """Makes a conversation that gives a name and asks for it after so many other turns.

    One in four gives the name of the model instead, in the system message.
    """
    name = a_name(random)
    between = of_turns(random, distance).turns if distance else ()
    thought = f"The name was given before: {name}."
    if random.random() < 0.25:
        prompt = vary(random, random.choice(("What is your name?", "What's your name?")))
        question = Turn(prompt, thought, f"My name is {name}.")
        return Conversation(NAME_RECALL, (*between, question), _or_toss(random, is_thinking), f"Your name is {name}.")
    greeting = random.choice((f"My name is {name}.", f"Hi, I am {name}.", f"Hello! My name is {name}."))
    told = Turn(greeting, f"The user's name is {name}. I say hello.", f"Nice to meet you, {name}!")
    if not between and random.random() < 0.4:
        return Conversation(NAME_RECALL, (told,), _or_toss(random, is_thinking), _system(random))
    question = Turn(vary(random, random.choice(_NAME_QUESTIONS)), thought, f"Your name is {name}.")
    return Conversation(NAME_RECALL, (told, *between, question), _or_toss(random, is_thinking), _system(random))


def _or_toss(random: Random, is_thinking: bool | None) -> bool:
    return random.random() < 0.5 if is_thinking is None else is_thinking


def _system(random: Random) -> str | None:
    return random.choice(_SYSTEMS) if random.random() < 0.12 else None
