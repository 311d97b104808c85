import json
import random
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from engines.demo_model import MODEL_DIR
from engines.model import Constraint, NothingAllowed
from engines.text.grammar import MAX_CHARACTERS, Grammars
from engines.text.tokenizer import Tokenizer, load_tokenizer
from engines.text.trial import Form
from tests.support.json_fits import fits
from tests.support.tiny_models import BEGIN, END, byte_fallback_tokenizer, byte_level_tokenizer, write_tokenizer

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue é 🦊"]}, "maxItems": 3},
        "zip": {"anyOf": [{"type": "string", "pattern": "^[0-9]{5}$"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
CHOICES = ("yes", "no", "yes and no", 'say "a\\b"\n/é|🦊(x)*', "")
REGEX = r"[A-Za-z]{2,5}(@|é|🦊)+[0-9]{1,3}\.(com|org)"
LARK = 'start: sum\nsum: NUMBER ("+" sum)?\nNUMBER: /[0-9]{1,3}/'
GBNF = 'root ::= sum\nsum ::= [0-9] | "(" sum "+" sum ")"'


def is_sum(text: str) -> bool:
    return re.fullmatch(r"\d{1,3}(\+\d{1,3})*", text) is not None


def is_nested_sum(text: str) -> bool:
    while text != (text := re.sub(r"\(\d\+\d\)", "1", text)):
        pass
    return re.fullmatch(r"\d", text) is not None


FORMS: dict[str, tuple[Form, Sequence[str], Callable[[str], bool]]] = {
    "json_schema": ("json_schema", [json.dumps(PERSON)], lambda text: fits(json.loads(text), PERSON)),
    "json_object": ("json_object", ['{"type": "object"}'], lambda text: isinstance(json.loads(text), dict)),
    "regex": ("regex", [REGEX], lambda text: re.fullmatch(REGEX, text) is not None),
    "choice": ("choice", CHOICES, lambda text: text in CHOICES),
    "lark": ("ebnf", [LARK], is_sum),
    "gbnf": ("ebnf", [GBNF], is_nested_sum),
}


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tokenizer, Grammars]]:
    @cache
    def open_(name: str) -> tuple[Tokenizer, Grammars]:
        directory = MODEL_DIR
        if name != "demo":
            made = {"byte-level": byte_level_tokenizer, "byte-fallback": byte_fallback_tokenizer}[name]()
            directory = write_tokenizer(tmp_path_factory.mktemp(name), made)
            (directory / "config.json").write_text(json.dumps({"eos_token_id": made.token_to_id(END)}))
        tokenizer = load_tokenizer(directory)
        return tokenizer, Grammars(tokenizer, tokenizer.size + 13)

    return open_


TOKENIZERS = pytest.mark.parametrize("name", ["demo", "byte-level", "byte-fallback"])
Opened = Callable[[str], tuple[Tokenizer, Grammars]]


def allowed(mask: bytes) -> list[int]:
    return [token for token in range(8 * len(mask)) if mask[token // 8] >> token % 8 & 1]


def walk(tokenizer: Tokenizer, constraint: Constraint, seed: int) -> list[int]:
    """Goes on with any id that is allowed, up to an end, and returns the ids without it."""
    choose, ids = random.Random(seed), list[int]()
    closing = {tokenizer.encode(text, add_special_tokens=False)[-1] for text in '"}])'}
    while len(ids) < 2000:
        options = allowed(constraint.mask())
        ends = [token for token in options if token in tokenizer.end_ids]
        near = [token for token in options if token in closing and len(ids) > 60]
        token = choose.choice(ends if ends and choose.random() < 0.3 else near or options)
        constraint.accept(token)
        if token in tokenizer.end_ids:
            return ids
        ids.append(token)
    raise AssertionError("there is no end")


@TOKENIZERS
@pytest.mark.parametrize(("form", "texts", "holds"), FORMS.values(), ids=FORMS)
def test_whatever_is_allowed_comes_to_a_text_of_the_form(
    opened: Opened, name: str, form: Form, texts: Sequence[str], holds: Callable[[str], bool]
) -> None:
    tokenizer, grammars = opened(name)
    new = grammars.compile(form, texts, tokenizer.end_ids)
    for seed in range(15):
        text = tokenizer.decode(walk(tokenizer, new(), seed))
        assert holds(text), text


@TOKENIZERS
def test_a_text_of_the_form_is_allowed_however_the_model_writes_it(opened: Opened, name: str) -> None:
    tokenizer, grammars = opened(name)
    text = json.dumps({"name": "Ruby é", "age": 31, "tags": ["red", "blue é 🦊"], "zip": "90210"}, ensure_ascii=False)
    constraint = grammars.compile("json_schema", [json.dumps(PERSON)], tokenizer.end_ids)()
    for token in tokenizer.encode(text, add_special_tokens=False):
        assert token in allowed(constraint.mask()) or name == "byte-fallback"  # puts a space before a text
        if name == "byte-fallback":
            return
        constraint.accept(token)
    assert allowed(constraint.mask()) == sorted(tokenizer.end_ids)


@TOKENIZERS
def test_a_mask_has_a_bit_for_each_id_of_the_model_and_allows_none_that_the_tokenizer_lacks(
    opened: Opened, name: str
) -> None:
    tokenizer, grammars = opened(name)
    mask = grammars.compile("regex", [r"(.|\n)*"], tokenizer.end_ids)().mask()
    assert len(mask) == -(-(tokenizer.size + 13) // 8)
    assert max(allowed(mask)) < tokenizer.size
    special = set(allowed(mask)) & {
        token for text in tokenizer.special_tokens for token in tokenizer.encode(text, add_special_tokens=False)
    }
    assert special == tokenizer.end_ids


def test_a_model_may_have_fewer_ids_than_its_tokenizer(opened: Opened) -> None:
    tokenizer, _ = opened("byte-level")
    new = Grammars(tokenizer, 301).compile("regex", ["(the|fox)*"], tokenizer.end_ids)
    assert len(new().mask()) == 38
    assert max(allowed(new().mask())) < 301
    with pytest.raises(ValueError, match="may not come"):
        new().accept(310)


def test_an_end_may_come_only_where_the_output_may_end(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    [end] = tokenizer.end_ids
    constraint = grammars.compile("regex", ["a+"], tokenizer.end_ids)()
    [a] = tokenizer.encode("a")
    assert end not in allowed(constraint.mask())
    with pytest.raises(ValueError, match="may not come"):
        constraint.accept(end)
    constraint.accept(a)
    assert set(allowed(constraint.mask())) >= {a, end}
    constraint.accept(end)
    with pytest.raises(NothingAllowed):
        constraint.mask()
    with pytest.raises(ValueError, match="may not come"):
        constraint.accept(a)


def test_a_request_may_have_other_ends_than_the_model(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    [begin], [a], [b] = (tokenizer.encode(text, add_special_tokens=False) for text in (BEGIN, "a", "b"))
    constraint = grammars.compile("regex", ["a+b"], frozenset({begin, b}))()
    constraint.accept(a)
    assert set(allowed(constraint.mask())) == {a, b}  # `b` ends the output where its text may come
    constraint.accept(b)
    assert allowed(constraint.mask()) == [begin]
    constraint.accept(begin)
    for ends in (frozenset[int](), frozenset({100_000}), frozenset({b})):
        with pytest.raises(ValueError, match="nothing could end the output"):
            grammars.compile("regex", ["a"], ends)


def test_an_id_that_may_not_come_is_refused_and_changes_nothing(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    constraint = grammars.compile("choice", ["fox", "dog"], tokenizer.end_ids)()
    before = constraint.mask()
    for token in (*tokenizer.encode("x"), 0, 1, 319, 330, -1, 10**6):
        with pytest.raises(ValueError, match="may not come"):
            constraint.accept(token)
    assert constraint.mask() == before
    constraint.accept(tokenizer.encode("f")[0])


@TOKENIZERS
def test_an_output_goes_on_behind_what_it_was_given(opened: Opened, name: str) -> None:
    tokenizer, grammars = opened(name)
    new = grammars.compile("json_schema", [json.dumps(PERSON)], tokenizer.end_ids)
    ids = walk(tokenizer, new(), 3)
    straight, masks = new(), []
    for token in ids:
        masks.append(straight.mask())
        straight.accept(token)
    for cut in range(0, len(ids), 5):
        resumed = new()
        for token in ids[:cut]:
            resumed.accept(token)
        assert resumed.mask() == masks[cut]


def test_outputs_of_one_form_do_not_touch_one_another(opened: Opened) -> None:
    tokenizer, grammars = opened("demo")
    new = grammars.compile("json_object", ['{"type": "object"}'], tokenizer.end_ids)
    alone = [walk(tokenizer, new(), seed) for seed in range(6)]
    together: dict[int, list[int]] = {}

    def run(seed: int) -> None:
        together[seed] = walk(tokenizer, new(), seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(6)] == alone


BAD: dict[str, tuple[Form, Sequence[str], str]] = {
    "no JSON": ("json_schema", ["{'type': 1}"], "JSON|property name"),
    "no schema": ("json_schema", ["3"], "schema"),
    "an unknown type": ("json_schema", ['{"type": "objekt"}'], "objekt"),
    "a keyword that is not known": ("json_schema", ['{"type": "array", "uniqueItems": true}'], "uniqueItems"),
    "a schema that allows nothing": ("json_schema", ['{"type": "integer", "minimum": 3, "maximum": 2}'], "minimum"),
    "a schema that never ends": ("json_schema", ['{"type": "array", "minItems": 1, "items": {"$ref": "#"}}'], "ends"),
    "JSON that is nested too deeply": ("json_schema", ["[" * 30_000], "recursion|simpler"),
    "a broken regular expression": ("regex", ["(a"], "unclosed group"),
    "look-around": ("regex", ["a(?=b)"], "look-around"),
    "a regular expression that allows nothing": ("regex", [r"a[^\s\S]"], "no text at all"),
    "a grammar without a rule": ("ebnf", ["just words"], "::="),
    "an unknown rule": ("ebnf", ["start: foo"], 'unknown name: "foo"'),
    "a grammar that never ends": ("ebnf", ['start: "a" start'], "never ends"),
    "an unknown special token": ("ebnf", ["start: <|nobody|>"], "special token"),
    "too much memory": ("regex", ["(a{950}){950}"], "it takes too much memory"),
    "too many characters": ("regex", ["a" * (MAX_CHARACTERS + 1)], "65537 characters are too many"),
    "a stack that overflows": (
        "ebnf",
        ["start: a0\n" + "\n".join(f"a{each}: a{each + 1}" for each in range(3000)) + '\na3000: "x"'],
        "make it simpler",
    ),
}


@pytest.mark.parametrize(("form", "texts", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_a_form_is_said(opened: Opened, form: Form, texts: Sequence[str], said: str) -> None:
    tokenizer, grammars = opened("byte-level")
    with pytest.raises(ValueError, match=said):
        grammars.compile(form, texts, tokenizer.end_ids)


def test_a_form_that_takes_minutes_is_given_up(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.text.grammar.TRIAL_S", 1.0)
    tokenizer, grammars = opened("byte-level")
    patterns = {"allOf": [{"type": "string", "pattern": f"a.{{{each}}}b"} for each in range(1, 500)]}
    with pytest.raises(ValueError, match="takes too long to compile: make it simpler"):
        grammars.compile("json_schema", [json.dumps(patterns)], tokenizer.end_ids)


def test_a_special_token_may_be_a_part_of_a_grammar(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    constraint = grammars.compile("ebnf", [f'start: "a" {BEGIN} "b"'], tokenizer.end_ids)()
    for text in ("a", BEGIN, "b"):
        [token] = tokenizer.encode(text, add_special_tokens=False)
        constraint.accept(token)
    assert allowed(constraint.mask()) == sorted(tokenizer.end_ids)


def test_a_form_that_was_compiled_before_is_not_compiled_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, grammars = opened("byte-level")
    for each in range(5):
        grammars.compile("choice", [f"one {each}", "two"], tokenizer.end_ids)
    monkeypatch.setattr("engines.text.grammar.subprocess.run", None)
    for each in range(5):
        grammars.compile("choice", [f"one {each}", "two"], tokenizer.end_ids)().mask()


def test_what_is_kept_can_be_had_without_compiling_and_nothing_else(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    asked: tuple[Form, Sequence[str]] = ("choice", ["kept", "or not"])
    assert grammars.kept(*asked, tokenizer.end_ids) is None
    compiled = grammars.compile(*asked, tokenizer.end_ids)
    kept = grammars.kept(*asked, tokenizer.end_ids)
    assert kept is not None
    assert kept().mask() == compiled().mask()
    assert kept() is not kept()
    assert grammars.kept(*asked, ()) is None, "`compile` says what is wrong with such ends"


def test_a_grammar_that_takes_too_long_to_follow_ends_the_output_with_a_reason(opened: Opened) -> None:
    tokenizer, grammars = opened("byte-level")
    constraint = grammars.compile("ebnf", ['start: a{100}\na: b{100}\nb: c{100}\nc: "x"{100}'], tokenizer.end_ids)()
    with pytest.raises(NothingAllowed, match="too long to follow"):
        walk(tokenizer, constraint, 0)


def test_many_choices_are_followed(opened: Opened) -> None:
    tokenizer, grammars = opened("demo")
    choices = [f"number {each}" for each in range(3000)]
    new = grammars.compile("choice", choices, tokenizer.end_ids)
    assert {tokenizer.decode(walk(tokenizer, new(), seed)) for seed in range(20)} <= set(choices)
