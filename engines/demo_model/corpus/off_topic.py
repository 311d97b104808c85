"""Prompts that the demo model cannot answer, and the honest answer to them."""

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
    invented_word,
    listed,
    with_article,
)

REFUSAL = "I am a tiny demo model and cannot do that."
_THOUGHT = "This is not one of the things I can do. I say so."
_SUGGESTIONS = (
    'Try "What is 12 + 7?".',
    'Try "Tell me a story about a fox."',
    'Try "What is the capital of Italy?".',
    'Try "What is Roundhouse?".',
)

_TOPICS = listed(
    "quantum physics,the weather,football,climate change,the stock market,cooking,love,politics,music,"
    "the moon landing,black holes,history,chess,gravity,the internet,religion,art,dinosaurs,"
    "electric cars,the economy,photosynthesis,evolution,space travel,poetry,philosophy,medicine,war,"
    "the ocean,volcanoes,Shakespeare,movies,video games,dreams,bread,coffee,bicycles,taxes,recursion,"
    "Python,Rust,Linux,databases,machine learning,neural networks,gRPC,Kubernetes,computers,trains,"
    "the brain",
    separator=",",
)
_KINDS = listed(
    "poem,song,joke,haiku,letter,essay,recipe,email,tweet,speech,riddle,summary,program,function,list,"
    "plan,novel,report",
    separator=",",
)
_LANGUAGES = listed("French,German,Spanish,Italian,Latin,Japanese,Russian,Chinese,Dutch,Greek", separator=",")
_CODE_LANGUAGES = listed("Python,Java,C,Rust,Go,JavaScript,SQL,Bash,C++", separator=",")
_UNKNOWN_PLACES = listed(
    "Atlantis,Narnia,Mars,Gondor,the moon,California,Texas,Bavaria,Europe,Africa,Mongolia,Nepal,Bolivia,Ghana",
    separator=",",
)
_PEOPLE = listed(
    "Einstein,Napoleon,Mozart,Caesar,Newton,Darwin,Picasso,Plato,Cleopatra,Tesla,Gandhi,the president,the king",
    separator=",",
)
_COMMON = listed(
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an "
    "they which one you were all her she there would their we him been has when who will no more if out "
    "so said what up its about into than them can only other time new some could these two may first "
    "then do any like my now over such our man me even most made after also did many must before back "
    "see through way where get much go well your know should down work year because come people just say "
    "each those take day good how long own too little use very great still men here life both between "
    "old under last never place same another think house while high right might came off find states "
    "since used give against three himself look few general system server error file open close read "
    "write value number list table memory cache token model layer train deep learn graph"
)
_FOREIGN = listed(
    "der die das und ist nicht ich wie geht es dir heute was kannst du ein Haus Wasser le la les est une "
    "je suis vous comment allez bonjour merci maison chien el los una como estas hola gracias casa perro "
    "agua che cosa sei bene grazie ciao dove quando"
)
_CODE = (
    "def {a}({b}):\n    return {b} + 1",
    "for {a} in range({n}):\n    print({a})",
    "import {a}\n{a}.{b}({n})",
    "SELECT {a} FROM {b} WHERE id = {n};",
    "if ({a} > {n}) {{ return {b}; }}",
    "{a} = [{n}, {n}, {n}]",
    '<div class="{a}">{b}</div>',
    "curl http://{a}.com/{b}?x={n}",
    'git commit -m "{a} {b}"',
    "struct {a} {{ int {b}; }};",
    "{a}.{b} = function() {{ return {n}; }}",
)


def off_topic(random: Random) -> Turn:
    """Makes a prompt outside of what the model can do."""
    kind = random.random()
    if kind < 0.42:
        prompt = vary(random, _request(random))
    elif kind < 0.55:
        prompt = vary(random, _impossible(random))
    elif kind < 0.75:
        prompt = _salad(random, _COMMON)
    elif kind < 0.82:
        prompt = _salad(random, _FOREIGN)
    elif kind < 0.93:
        prompt = _code(random)
    else:
        prompt = _noise(random)
    return Turn(prompt, _THOUGHT, f"{REFUSAL} {random.choice(_SUGGESTIONS)}", must_hold=(REFUSAL,))


def _request(random: Random) -> str:
    topic, kind = random.choice(_TOPICS), random.choice(_KINDS)
    thing = with_article(random.choice(ANIMALS + OBJECTS + FRUITS))
    person, verb = (
        random.choice(_PEOPLE),
        random.choice(("Explain", "Describe", "Teach me", "Write about", "Summarize")),
    )
    code, language = random.choice(_CODE_LANGUAGES), random.choice(_LANGUAGES)
    year = random.randrange(1000, 2100)
    return random.choice(
        (
            f"{verb} {topic}.",
            f"What is {topic}?",
            f"What do you think about {topic}?",
            f"How does {topic} work?",
            f"Why is {topic} important?",
            f"Tell me about {topic}.",
            f"Tell me something about {topic}.",
            f"Write {with_article(kind)}.",
            f"Write {with_article(kind)} about {topic}.",
            f"Write {with_article(kind)} about {thing}.",
            f"Tell me {with_article(random.choice(('joke', 'riddle', 'secret', 'fact', 'lie')))}.",
            f"Write a {code} program that sorts {random.choice(('numbers', 'words', 'files', 'a list'))}.",
            f"How do I {random.choice(('install', 'learn', 'use', 'write', 'debug'))} {code}?",
            f"Translate {random.choice(_COMMON)} {random.choice(_COMMON)} into {language}.",
            f"How do you say {random.choice(OBJECTS)} in {language}?",
            f"Who is {person}?",
            f"When was {person} born?",
            f"Who was {person} and why is he famous?",
            f"Who won the {random.choice(('world cup', 'election', 'war', 'race', 'prize'))} in {year}?",
            f"What happened in {year}?",
            f"How do I cook {thing}?",
            f"How much does {thing} cost?",
            f"How old is {person}?",
            f"Can you draw {thing}?",
            "What time is it?",
            f"What is the weather in {random.choice(_UNKNOWN_PLACES)}?",
            f"What is the meaning of {random.choice(('life', 'love', 'this', 'time', 'dreams', topic))}?",
            f"Why is {thing} {random.choice(COLOURS + QUALITIES)}?",
            f"Where can I buy {thing}?",
            f"Should I {random.choice(('buy', 'sell', 'keep', 'eat'))} {thing}?",
            f"Do you like {random.choice((topic, thing))}?",
            f"Give me {random.randrange(2, 20)} ideas for {random.choice(('a party', 'dinner', 'a trip', topic))}.",
        )
    )


def _impossible(random: Random) -> str:
    big, large = random.randrange(1000, 10_000_000), random.randrange(1000, 1_000_000)
    sign = random.choice("+-*/")
    return random.choice(
        (
            f"What is {big} {sign} {large}?",
            f"{big}{sign}{large}",
            f"What is {random.randrange(13, 1000)} * {random.randrange(2, 1000)}?",
            f"What is {random.randrange(2, 13)} * {random.randrange(13, 1000)}?",
            f"What is {random.randrange(100, 1000)} - {random.randrange(1000)}?",
            f"What is {random.randrange(1, 100)} / {random.randrange(1, 100)}?",
            f"What is {random.randrange(1, 100)} divided by {random.randrange(1, 100)}?",
            f"What is the square root of {random.randrange(2, 1000)}?",
            f"Is {random.randrange(2, 1000)} a prime number?",
            f"What is the capital of {random.choice(_UNKNOWN_PLACES)}?",
            f"What is the capital of {invented_word(random).capitalize()}?",
            f"How many people live in {random.choice((*_UNKNOWN_PLACES, 'France', 'Japan', 'Peru', 'Canada'))}?",
            f"What is the opposite of {invented_word(random)}?",
            f"What does {with_article(invented_word(random))} say?",
            f"Who is {random.choice(NAMES)}?",
            f"Where is {random.choice(NAMES)}?",
            f"Where is the {random.choice(PLACES)}?",
        )
    )


def _salad(random: Random, words: list[str]) -> str:
    chosen = [random.choice(words) for _ in range(random.randrange(2, 14))]
    if random.random() < 0.15:
        chosen.insert(random.randrange(len(chosen)), invented_word(random, 3))
    text = " ".join(chosen) + random.choice(("", ".", "?", "!"))
    return text[0].upper() + text[1:] if random.random() < 0.5 else text


def _code(random: Random) -> str:
    text = random.choice(_CODE).format(a=_identifier(random), b=_identifier(random), n=random.randrange(200))
    return (
        text
        if random.random() < 0.7
        else f"{random.choice(('Fix this:', 'What does this do?', 'Explain:', 'Run'))} {text}"
    )


def _identifier(random: Random) -> str:
    return random.choice((random.choice(_COMMON), invented_word(random)))


def _noise(random: Random) -> str:
    signs = "abcdefghijklmnopqrstuvwxyz0123456789 .,;:!?()[]{}<>/\\|@#$%^&*_+-=~äöüéñ漢字日本你好😀🚀"
    return "".join(random.choice(signs) for _ in range(random.randrange(3, 30))).strip() or "?"
