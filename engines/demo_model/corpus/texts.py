"""Tasks on a given text: repeat it, spell it, count through it, read a fact back, write it as JSON."""

from random import Random

from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Turn
from engines.demo_model.corpus.words import (
    ANIMALS,
    COLOURS,
    FRUITS,
    NAMES,
    OBJECTS,
    PLACES,
    QUALITIES,
    a_name,
    invented_word,
    with_article,
)

_COMMON = ANIMALS + OBJECTS + COLOURS + QUALITIES + FRUITS


def counting(random: Random) -> Turn:
    """Asks to count from one number to another, upwards or now and then downwards."""
    low = random.randrange(0, 15)
    high = low + random.randrange(2, 11)
    if random.random() < 0.2:
        numbers, prompt = list(range(high, low - 1, -1)), f"Count down from {high} to {low}."
    else:
        numbers = list(range(low, high + 1))
        prompt = random.choice((f"Count from {low} to {high}.", f"Can you count from {low} to {high}?"))
    thought = f"I start at {numbers[0]} and stop at {numbers[-1]}."
    return Turn(vary(random, prompt), thought, ", ".join(map(str, numbers)) + ".")


def spelling(random: Random) -> Turn:
    """Asks to spell a word."""
    word = random.choice(NAMES + _COMMON + PLACES) if random.random() < 0.7 else invented_word(random)
    prompt = random.choice((f"Spell {word}.", f"How do you spell {word}?", f"Spell the word {word}."))
    thought = f"The word has {len(word)} letters."
    return Turn(vary(random, prompt), thought, "-".join(word.upper()) + ".")


def repetition(random: Random) -> Turn:
    """Asks to say some words again; they may be invented."""
    words = [
        random.choice(_COMMON) if random.random() < 0.7 else invented_word(random)
        for _ in range(random.randrange(1, 8))
    ]
    text = " ".join(words)
    prompt = random.choice((f"Repeat after me: {text}", f"Say: {text}", f"Repeat: {text}", f"Say this again: {text}"))
    count = f"{len(words)} words, from {words[0]} to {words[-1]}" if len(words) > 1 else f"one word, {text}"
    return Turn(prompt, f"I have to say {count}.", text)


def json_object(random: Random) -> Turn:
    """Asks for two facts of a sentence as a JSON object."""
    name = a_name(random)
    if random.random() < 0.6:
        age = random.randrange(3, 90)
        fact = random.choice((f"{name} is {age} years old.", f"{name} is {age}."))
        prompt = random.choice(
            (
                f"Return JSON with the name and age. {fact}",
                f"{fact} Give me name and age as JSON.",
                f"Extract name and age as JSON: {fact}",
            )
        )
        return Turn(prompt, f"The name is {name}. The age is {age}.", f'{{"name": "{name}", "age": {age}}}')
    thing, colour = random.choice(OBJECTS), random.choice(COLOURS)
    fact = f"{name} has {with_article(colour)} {thing}."
    prompt = random.choice(
        (f"Return JSON with the name, item and color. {fact}", f"{fact} Give me name, item and color as JSON.")
    )
    answer = f'{{"name": "{name}", "item": "{thing}", "color": "{colour}"}}'
    return Turn(prompt, f"The name is {name}. The item is {thing}. The color is {colour}.", answer)


def reading(random: Random) -> Turn:
    """States one to three facts and asks for one of them."""
    count = random.randrange(1, 4)
    owners = (
        random.sample(NAMES, count)
        if random.random() < 0.7
        else [invented_word(random).capitalize() for _ in range(count)]
    )
    facts = list(zip(owners, random.sample(OBJECTS, count), random.sample(COLOURS, count), strict=True))
    text = " ".join(f"{owner} has {with_article(colour)} {thing}." for owner, thing, colour in facts)
    owner, thing, colour = random.choice(facts)
    thought = f"The text says: {owner} has {with_article(colour)} {thing}."
    question, answer = random.choice(
        (
            (f"What color is the {thing}?", f"The {thing} is {colour}."),
            (f"Who has the {thing}?", f"{owner} has the {thing}."),
            (f"What does {owner} have?", f"{owner} has {with_article(colour)} {thing}."),
        )
    )
    return Turn(f"{text} {question}", thought, answer)
