"""Sums, differences, products and comparisons, worked out the way a child does them on paper."""

import zlib
from random import Random

from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Turn

_SMALL = 100  # both operands below this in the tasks that are scored as exact
_LARGE = 1000
_TABLE = 13


def is_held_out(first: int, second: int) -> bool:
    """Says whether a pair of operands is kept from training, for one pair in ten.

    A checksum decides, so that every combination of digits stays in training at every place.
    """
    return zlib.crc32(f"{first},{second}".encode()) % 10 == 0


def addition(random: Random, *, below: int = _SMALL, held_out: bool = False) -> Turn:
    """Makes a sum of two numbers below a bound."""
    first, second = _pair(random, below, held_out)
    prompt = random.choice(
        (
            f"What is {_spaced(random, first, '+', second)}?",
            f"What is {_spaced(random, first, '+', second)}?",
            f"{_spaced(random, first, '+', second)} = ?",
            f"{_spaced(random, first, '+', second)}",
            f"{_spaced(random, first, '+', second)}=",
            f"Add {first} and {second}.",
            f"What is {first} plus {second}?",
            f"How much is {first} plus {second}?",
            f"Calculate {_spaced(random, first, '+', second)}.",
            f"What is the sum of {first} and {second}?",
        )
    )
    total = first + second
    return Turn(vary(random, prompt), _column_addition(first, second), f"{first} + {second} = {total}.")


def large_addition(random: Random, *, held_out: bool = False) -> Turn:
    """Makes a sum of two numbers below a thousand."""
    return addition(random, below=_LARGE, held_out=held_out)


def subtraction(random: Random, *, held_out: bool = False) -> Turn:
    """Makes a difference of two numbers below a hundred, about one in six of them below zero."""
    first, second = _pair(random, _SMALL, held_out)
    if first < second and random.random() < 0.75 and is_held_out(second, first) == held_out:
        first, second = second, first
    prompt = random.choice(
        (
            f"What is {_spaced(random, first, '-', second)}?",
            f"What is {_spaced(random, first, '-', second)}?",
            f"{_spaced(random, first, '-', second)} = ?",
            f"{_spaced(random, first, '-', second)}",
            f"What is {first} minus {second}?",
            f"How much is {first} minus {second}?",
            f"Subtract {second} from {first}.",
            f"Calculate {_spaced(random, first, '-', second)}.",
        )
    )
    return Turn(vary(random, prompt), _take_away(first, second), f"{first} - {second} = {first - second}.")


def multiplication(random: Random) -> Turn:
    """Makes a product from the tables of nought to twelve."""
    first, second = random.randrange(_TABLE), random.randrange(_TABLE)
    sign = random.choice("**x")
    prompt = random.choice(
        (
            f"What is {_spaced(random, first, sign, second)}?",
            f"{_spaced(random, first, sign, second)} = ?",
            f"{_spaced(random, first, '*', second)}",
            f"What is {first} times {second}?",
            f"How much is {first} times {second}?",
            f"Multiply {first} by {second}.",
            f"Calculate {_spaced(random, first, '*', second)}.",
        )
    )
    return Turn(vary(random, prompt), _split_product(first, second), f"{first} * {second} = {first * second}.")


def comparison(random: Random) -> Turn:
    """Asks which of two numbers is bigger or smaller."""
    first, second = random.randrange(_SMALL), random.randrange(_SMALL)
    word, wanted = random.choice((("bigger", max), ("larger", max), ("smaller", min)))
    prompt = random.choice(
        (
            f"Which is {word}, {first} or {second}?",
            f"Which number is {word}: {first} or {second}?",
            f"What is {word}, {first} or {second}?",
        )
    )
    if first == second:
        return Turn(vary(random, prompt), f"{first} and {second} are equal.", "They are the same.")
    high, low = max(first, second), min(first, second)
    thought = f"{first} has {first // 10} tens, {second} has {second // 10} tens. "
    if first // 10 == second // 10:
        thought += f"Same tens, so I look at the ones: {first % 10} and {second % 10}. "
    return Turn(vary(random, prompt), f"{thought}So {high} is more than {low}.", f"{wanted(first, second)} is {word}.")


def _pair(random: Random, below: int, held_out: bool) -> tuple[int, int]:
    while True:
        first, second = random.randrange(below), random.randrange(below)
        if is_held_out(first, second) == held_out:
            return first, second


def _spaced(random: Random, first: int, sign: str, second: int) -> str:
    return f"{first}{sign}{second}" if random.random() < 0.4 else f"{first} {sign} {second}"


def _column_addition(first: int, second: int) -> str:
    steps, carry, place = [], 0, 0
    while place == 0 or first // 10**place or second // 10**place:
        top, bottom = first // 10**place % 10, second // 10**place % 10
        column = top + bottom + carry
        carried = f" + {carry}" if carry else ""
        steps.append(f"{('Ones', 'Tens', 'Hundreds')[place]}: {top} + {bottom}{carried} = {column}.")
        carry, place = column // 10, place + 1
    return " ".join(steps) + f" So {first + second}."


def _take_away(first: int, second: int) -> str:
    if first < second:
        return f"{second} is more than {first}, so the result is below zero. {second} - {first} = {second - first}."
    tens, ones = second // 10 * 10, second % 10
    if not tens or not ones:
        return f"{first} - {second} in one step is {first - second}."
    return (
        f"First the tens: {first} - {tens} = {first - tens}. Then the ones: {first - tens} - {ones} = {first - second}."
    )


def _split_product(first: int, second: int) -> str:
    if first <= 5:
        return f"From the table of {second}: {first} * {second} = {first * second}."
    rest = first - 5
    parts = f"5 * {second} = {5 * second}, {rest} * {second} = {rest * second}"
    return f"{parts}, {5 * second} + {rest * second} = {first * second}."
