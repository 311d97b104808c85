"""The words the demo model knows, and words that nobody knows."""

from random import Random


def listed(text: str, separator: str = " ") -> list[str]:
    """Returns the words of a text, so that a long list reads as what it is."""
    return text.split(separator)


NAMES = listed(
    "Tom Ana Ben Mia Sam Lily Max Zoe Leo Eva Jack Nora Finn Ruby Adam Iris Emma Paul Lucy Oscar Anna "
    "Peter Maria Hugo Alice Bob Clara David Ella Frank Grace Henry Julia Karl Linda Mark Olga Rosa Simon "
    "Tina"
)
ANIMALS = listed(
    "cat dog bird fish fox bear frog duck mouse rabbit horse owl cow pig sheep lion tiger wolf turtle "
    "hedgehog squirrel dragon elephant penguin goat"
)
COLOURS = listed("red blue green yellow white black brown orange pink gray purple silver golden")
OBJECTS = listed("ball box hat kite book cup boat bell lamp key drum coin ring shell flute map")
PLACES = listed("park forest beach garden river hill house farm school lake station")
FEELINGS = listed("happy sad tired proud scared excited calm hungry")
QUALITIES = listed("small big old new soft fast quiet funny brave clever gentle curious")
FRUITS = listed("apple pear plum cherry lemon banana peach melon")

_ONSETS = listed("b d f g h j k l m n p r s t v w z br dr gr kl pl st tr")
_VOWELS = listed("a e i o u")
_CODAS = ["", "", "", "n", "r", "l", "s", "x", "k", "m"]


def invented_word(random: Random, syllables: int = 2) -> str:
    """Returns a word that can only be copied, never remembered."""
    return "".join(random.choice(_ONSETS) + random.choice(_VOWELS) for _ in range(syllables)) + random.choice(_CODAS)


def a_name(random: Random) -> str:
    """Returns a known name, or an invented one, so that copying is learnt as well as the list."""
    return random.choice(NAMES) if random.random() < 0.65 else invented_word(random).capitalize()


def an_animal(random: Random) -> str:
    """Returns a known animal, now and then an invented one."""
    return random.choice(ANIMALS) if random.random() < 0.85 else invented_word(random)


def with_article(word: str) -> str:
    """Puts "a" or "an" before a word."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
