import json
from typing import Any

import pytest

from engines.text.endless import endless
from engines.text.trial import tried


def lists_of(item: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, **more}


SELF = {"$ref": "#"}
FINITE: dict[str, Any] = {
    "anything": True,
    "no references": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
    "a list of itself": lists_of(SELF),
    "an optional part": {"type": "object", "properties": {"next": SELF}},
    "a way out": {"anyOf": [lists_of(SELF, minItems=1), {"type": "null"}]},
    "one of many types": {"type": ["object", "null"], "required": ["a"], "properties": {"a": SELF}},
    "a tree": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "object", "required": ["kids"], "properties": {"kids": lists_of({"$ref": "#"})}}},
    },
    "an enum": {"enum": [{"a": 1}], "properties": {"a": SELF}},
    "a strange pointer": {"$ref": "#/$defs/no~1such", "$defs": {}},
    "a name that is a key": {"type": "object", "properties": {"$ref": {"type": "string"}}},
}
ENDLESS: dict[str, tuple[Any, str]] = {
    "itself": (SELF, "#"),
    "a part of itself": ({"type": "object", "required": ["a"], "properties": {"a": SELF}}, "#"),
    "any part": ({"type": "object", "required": ["a"], "additionalProperties": SELF}, "#"),
    "all of": ({"allOf": [{"type": "integer"}, SELF]}, "#"),
    "no way out": ({"anyOf": [lists_of(SELF, minItems=1), SELF]}, "#"),
    "the first items": ({"type": "array", "prefixItems": [True, SELF], "minItems": 2}, "#"),
    "the other items": (lists_of(SELF, prefixItems=[True], minItems=2), "#"),
    "in a circle": (
        {
            "$defs": {
                "a": {"type": "object", "required": ["b"], "properties": {"b": {"$ref": "#/$defs/b"}}},
                "b": lists_of({"$ref": "#/$defs/a"}, minItems=1),
            },
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/a"}},
        },
        "#/$defs/a",
    ),
}


@pytest.mark.parametrize("schema", FINITE.values(), ids=FINITE)
def test_a_schema_that_some_value_fits_is_let_through(schema: Any) -> None:
    assert endless(schema) == ""


@pytest.mark.parametrize(("schema", "named"), ENDLESS.values(), ids=ENDLESS)
def test_a_schema_that_no_finite_value_fits_is_named(schema: Any, named: str) -> None:
    assert endless(schema) == named
    with pytest.raises(ValueError, match="never ends"):
        tried("json_schema", [json.dumps(schema)], [])


GRAMMARS = {
    "lists": 'start: item ("," item)*\nitem: "x" | "(" start ")"',
    "lines": 'start: sum // the rule "start:\nsum: term\n    | sum "+" term\n?term: NUMBER\n    | "(" sum ")"\n'
    "NUMBER: /[0-9]+/",
    "imports": '%import common.INT\n%ignore /[ \\t]+/\nstart: "x" INT (/,/ INT)*',
    "ranges": 'start: ("a".."z"){1,3} ["x"] more?\nmore: "q"i+',
    "attributes": 'start: name "x"\nname[max_tokens=10]: /[a-z]+/',
    "text that looks like a rule": 'start: "a: start" | /b: start/',
    "JSON within": 'start: "x" %json {"type": "integer"}',
    "GBNF": 'root ::= "a" more\nmore ::= "b" more | "c"',
}
ENDLESS_GRAMMARS = {
    "itself": 'start: "a" start',
    "itself, after a comment": '// start: "a"\nstart: "a" start',
    "two in a circle": 'start: "a" other\nother: start "b" | other',
    "an alternative that leads nowhere": 'start: "a" | "b" other\nother: "c" other',
    "GBNF": 'root ::= "a" | more\nmore ::= "b" more',
}


@pytest.mark.parametrize("text", GRAMMARS.values(), ids=GRAMMARS)
def test_a_grammar_whose_rules_all_end_is_let_through(text: str) -> None:
    assert tried("ebnf", [text], [])


@pytest.mark.parametrize("text", ENDLESS_GRAMMARS.values(), ids=ENDLESS_GRAMMARS)
def test_a_grammar_with_a_rule_that_never_ends_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="never ends"):
        tried("ebnf", [text], [])
