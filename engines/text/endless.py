"""Finds grammars and schemas of which some part can never come to an end. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_LITERAL = r'"(?:\\.|[^"\\\n])*"i?'
_TERMINAL = re.compile(
    rf"(?P<comment>(?://|\#)[^\n]*)|{_LITERAL}(?:\s*\.\.\s*{_LITERAL})?|/(?:\\.|[^/\\\n])+/[a-z]*|<[^>\s]*>"
)
_BEYOND = re.compile(r"%(?:json|regex|lark)|[~&]")  # what the rewriting below would not understand
_IMPORT = re.compile(r"^\s*%import\s(.*)$", re.MULTILINE)
_NAME = re.compile(r"\b[A-Z_][A-Z0-9_]*\b")
_DIRECTIVE = re.compile(r"^\s*%(?:import|ignore|declare)\s.*$", re.MULTILINE)
_RULE = re.compile(r"^\s*[?!]?([a-z_][a-z0-9_]*)\s*(?:\[[^\]]*\])?\s*:", re.MULTILINE)


def hollow(lark: str) -> str | None:
    """Returns a Lark grammar that allows the empty text if and only if every rule of the given one can come to an end.

    All letters are taken out of it, and it begins with all rules in a row: a rule without letters can be empty if it
    can end. Returns None if the grammar has parts that are not understood here.
    """
    if _BEYOND.search(_TERMINAL.sub("", lark)):
        return None
    text = _TERMINAL.sub(lambda found: "" if found["comment"] else '""', lark)
    imported = [name for line in _IMPORT.findall(text) for name in _NAME.findall(line)]
    text = re.sub(r"\bstart\b", "start_", _DIRECTIVE.sub("", text))
    return "\n".join([f"start: {' '.join(_RULE.findall(text))}", text, *(f'{name}: ""' for name in imported)])


def endless(schema: Any) -> str:
    """Returns the first reference in a JSON schema that only endless values would satisfy; empty if there is none."""
    found = {"#": schema, **{reference: _target(schema, reference) for reference in _references(schema)}}
    finite: set[str] = set()
    while more := {name for name in found.keys() - finite if _is_finite(found[name], finite)}:
        finite |= more
    return next((name for name in found if name not in finite), "")


def _references(node: Any) -> Iterator[str]:
    nodes = [node]
    while nodes:
        each = nodes.pop()
        if isinstance(each, dict):
            if isinstance(each.get("$ref"), str):
                yield each["$ref"]
            nodes += each.values()
        elif isinstance(each, list):
            nodes += each


def _target(schema: Any, reference: str) -> Any:
    """Returns what a reference within the schema points to; True, which anything satisfies, for any other."""
    node = schema
    for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else ("",):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            node = node[int(key)] if key.isdigit() and int(key) < len(node) else True
        else:
            node = node.get(key, True) if isinstance(node, dict) else True
    return node


def _is_finite(node: Any, finite: set[str]) -> bool:
    """Tells whether some value ends, if exactly the references in `finite` are known to have one."""
    if not isinstance(node, dict):
        return True
    if isinstance(reference := node.get("$ref"), str) and reference not in finite:
        return False
    if not all(_is_finite(each, finite) for each in _list(node.get("allOf"))):
        return False
    for options in (_list(node.get("anyOf")), _list(node.get("oneOf"))):
        if options and not any(_is_finite(each, finite) for each in options):
            return False
    kinds = node.get("type")
    return any(
        (kind != "object" or _has_finite_properties(node, finite))
        and (kind != "array" or _has_finite_items(node, finite))
        for kind in (_list(kinds) or [kinds])
    )


def _has_finite_properties(node: Mapping[str, Any], finite: set[str]) -> bool:
    properties = node.get("properties")
    own = properties if isinstance(properties, dict) else {}
    return all(
        _is_finite(own.get(name, node.get("additionalProperties")), finite)
        for name in _list(node.get("required"))
        if isinstance(name, str)
    )


def _has_finite_items(node: Mapping[str, Any], finite: set[str]) -> bool:
    least, first = node.get("minItems"), _list(node.get("prefixItems"))
    count = least if isinstance(least, int) else 0
    return all(
        _is_finite(each, finite) for each in [*first[:count], *([node.get("items")] if count > len(first) else [])]
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
