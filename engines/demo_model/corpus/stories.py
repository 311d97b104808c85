"""Short stories of five sentences that keep to the name and the animal of the prompt."""

from dataclasses import dataclass
from random import Random

from engines.demo_model.corpus.phrasing import vary
from engines.demo_model.corpus.turns import Turn
from engines.demo_model.corpus.words import (
    COLOURS,
    FEELINGS,
    NAMES,
    OBJECTS,
    PLACES,
    QUALITIES,
    a_name,
    an_animal,
    with_article,
)


@dataclass(frozen=True, slots=True)
class Plot:
    """Everything that a story is about."""

    name: str
    animal: str
    friend: str
    thing: str
    colour: str
    place: str
    quality: str
    feeling: str

    def thought(self) -> str:
        """Returns the plan that a story follows."""
        return (
            f"The story is about {self.name} the {self.animal}. Place: {self.place}. "
            f"Thing: {with_article(self.colour)} {self.thing}. Friend: {self.friend}. End: {self.feeling}."
        )


def story(random: Random) -> Turn:
    """Asks for a story, with or without an animal and a name."""
    plot = _plot(random)
    animal, name = with_article(plot.animal), plot.name
    verb = random.choice(("Tell me", "Write", "Tell me", "Write me"))
    short = random.choice(("a story", "a short story"))
    prompt = random.choice(
        (
            f"{verb} {short}.",
            f"{verb} {short} about {animal}.",
            f"{verb} {short} about {animal}.",
            f"{verb} {short} about {animal} named {name}.",
            f"{verb} {short} about {animal} called {name}.",
            f"{verb} {short} about {name} the {plot.animal}.",
            f"{verb} {short} about {name}.",
        )
    )
    asked_for = tuple(word for word in (name, plot.animal) if word in prompt.split(" about ")[-1])
    return Turn(vary(random, prompt), plot.thought(), tell(random, plot), must_hold=asked_for)


def _plot(random: Random) -> Plot:
    name = a_name(random)
    return Plot(
        name=name,
        animal=an_animal(random),
        friend=random.choice([other for other in NAMES if other != name]),
        thing=random.choice(OBJECTS),
        colour=random.choice(COLOURS),
        place=random.choice(PLACES),
        quality=random.choice(QUALITIES),
        feeling=random.choice(FEELINGS),
    )


def tell(random: Random, plot: Plot) -> str:
    """Tells a plot in five sentences."""
    name, friend, thing, place = plot.name, plot.friend, plot.thing, plot.place
    quality, coloured = with_article(plot.quality), f"{with_article(plot.colour)} {thing}"
    sentences = (
        (
            f"Once upon a time, there was {quality} {plot.animal} named {name}.",
            f"One day, {name} the {plot.animal} went to the {place}.",
            f"{name} was {quality} {plot.animal} who lived near the {place}.",
        ),
        (
            f"{name} found {coloured} in the {place}.",
            f"At the {place}, {name} saw {coloured} under a tree.",
            f"{name} wanted to find {coloured}.",
        ),
        (
            f'"Look at this {thing}!" said {name}.',
            f"{name} showed the {thing} to {friend}.",
            f"{friend} came to the {place} to help {name}.",
        ),
        (
            f"{friend} and {name} played with the {plot.colour} {thing} all day.",
            f"{name} and {friend} took the {thing} home and put it in a box.",
            f'{friend} said, "What a nice {plot.colour} {thing}!"',
        ),
        (
            f"In the end, {name} was very {plot.feeling}.",
            f"{name} felt {plot.feeling} and went to sleep.",
            f"After that, {name} felt {plot.feeling}, and {friend} was a good friend.",
        ),
    )
    return " ".join(random.choice(choices) for choices in sentences)
