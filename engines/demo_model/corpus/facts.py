"""Simple questions with one right answer: capitals, opposites, sounds, days, colours and numbers in words."""

from random import Random

from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Turn
from engines.demo_model.corpus.words import listed, with_article

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "Austria": "Vienna", "Portugal": "Lisbon", "Ireland": "Dublin", "Canada": "Ottawa", "Peru": "Lima",
    "Cuba": "Havana", "Kenya": "Nairobi", "India": "New Delhi", "Chile": "Santiago", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Hungary": "Budapest", "Belgium": "Brussels", "England": "London", "Russia": "Moscow",
    "Turkey": "Ankara", "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Mexico": "Mexico City",
    "Switzerland": "Bern", "Iceland": "Reykjavik", "Ukraine": "Kyiv", "Romania": "Bucharest", "Australia": "Canberra",
    "Vietnam": "Hanoi", "Thailand": "Bangkok", "the Netherlands": "Amsterdam", "the United States": "Washington",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "fast": "slow", "day": "night", "old": "new", "happy": "sad",
    "open": "closed", "left": "right", "hard": "soft", "wet": "dry", "loud": "quiet", "light": "dark", "high": "low",
    "near": "far", "rich": "poor", "full": "empty", "early": "late", "strong": "weak", "true": "false",
}  # fmt: skip
_SOUNDS = {
    "cat": "meow", "dog": "woof", "duck": "quack", "cow": "moo", "sheep": "baa", "frog": "ribbit", "owl": "hoot",
    "lion": "roar", "horse": "neigh", "pig": "oink",
}  # fmt: skip
_COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "coal": "black", "a lemon": "yellow",
    "blood": "red", "the sun": "yellow", "a carrot": "orange", "milk": "white",
}  # fmt: skip
_DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_NUMBERS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)


def capital(random: Random) -> Turn:
    """Asks for the capital of a country."""
    country = random.choice(list(CAPITALS))
    city = CAPITALS[country]
    prompt = random.choice(
        (
            f"What is the capital of {country}?",
            f"What is the capital of {country}?",
            f"Tell me the capital of {country}.",
            f"Capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Name the capital of {country}.",
        )
    )
    return Turn(
        vary(random, prompt),
        f"The country is {country}. Its capital is {city}.",
        f"The capital of {country} is {city}.",
    )


def country_of_capital(random: Random) -> Turn:
    """Asks for the country of a capital."""
    country = random.choice(list(CAPITALS))
    city = CAPITALS[country]
    prompt = random.choice((f"{city} is the capital of which country?", f"Which country has the capital {city}?"))
    return Turn(
        vary(random, prompt), f"The city is {city}. The country is {country}.", f"{city} is the capital of {country}."
    )


def opposite(random: Random) -> Turn:
    """Asks for the opposite of a word."""
    word, other = random.choice(list(_OPPOSITES.items()))
    if random.random() < 0.5:
        word, other = other, word
    prompt = random.choice(
        (f"What is the opposite of {word}?", f"Opposite of {word}?", f"Tell me the opposite of {word}.")
    )
    return Turn(vary(random, prompt), f"{word} and {other} are a pair.", f"The opposite of {word} is {other}.")


def sound(random: Random) -> Turn:
    """Asks what an animal says."""
    animal = random.choice(list(_SOUNDS))
    article = with_article(animal)
    prompt = random.choice((f"What does {article} say?", f"What sound does {article} make?"))
    thought = f"The animal is {article}. Its sound is {_SOUNDS[animal]}."
    return Turn(vary(random, prompt), thought, f"{article.capitalize()} says {_SOUNDS[animal]}.")


def colour(random: Random) -> Turn:
    """Asks for the colour of a thing that everybody knows."""
    thing = random.choice(list(_COLOURS))
    prompt = random.choice((f"What color is {thing}?", f"What is the color of {thing}?"))
    answer = f"{thing[0].upper()}{thing[1:]} is {_COLOURS[thing]}."
    return Turn(vary(random, prompt), f"The thing is {thing}. Most people see it as {_COLOURS[thing]}.", answer)


def weekday(random: Random) -> Turn:
    """Asks for the day after or before a day."""
    place = random.randrange(7)
    day, word = _DAYS[place], random.choice(("after", "before"))
    other = _DAYS[(place + (1 if word == "after" else -1)) % 7]
    prompt = random.choice(
        (f"What day comes {word} {day}?", f"Which day is {word} {day}?", f"What day is {word} {day}?")
    )
    order = f"{day}, {other}" if word == "after" else f"{other}, {day}"
    return Turn(vary(random, prompt), f"The order is {order}.", f"{other} comes {word} {day}.")


def number_word(random: Random) -> Turn:
    """Asks for a number in words, or for the digits of a word."""
    number = random.randrange(len(_NUMBERS))
    word = _NUMBERS[number]
    if random.random() < 0.5:
        prompt = random.choice((f"Write {number} in words.", f"How do you write {number} in words?"))
        return Turn(vary(random, prompt), f"{number} is written {word}.", f"{word.capitalize()}.")
    prompt = random.choice((f"What number is {word}?", f"Write {word} as a number."))
    return Turn(vary(random, prompt), f"The word {word} is {number}.", f"{word.capitalize()} is {number}.")
