"""Secrets are taken out of text, wherever they stand in it."""

from __future__ import annotations

import pytest

from nodeagent.hiding import Hiding
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.v1.deployment_pb2 import EnvVar


def hiding(*secrets: str) -> Hiding:
    env = [EnvVar(name=f"S{number}", value=value) for number, value in enumerate(secrets)]
    return Hiding(
        EngineSpec(env=[*env, EnvVar(name="PLAIN", value="plain text")], secret_names=[each.name for each in env])
    )


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["hunter2"], "a hunter2, b hunter2", "a [secret], b [secret]"),
        (["pass", "password"], "my password", "my [secret]"),
        (["line one\nline two"], "line one\nline two", "[secret]"),
        (["line one\nline two"], "then line two alone", "then [secret] alone"),
        (["long line\nab"], "ab and abc", "ab and abc"),
        ([], "plain text", "plain text"),
    ],
    ids=["twice", "one within another", "several lines", "one of several", "a short line of a long one", "none"],
)
def test_a_secret_is_not_shown(secrets: list[str], text: str, shown: str) -> None:
    assert hiding(*secrets).hide(text) == shown


def test_what_was_cut_in_the_middle_of_a_secret_shows_no_part_of_it() -> None:
    hidden = hiding("correct horse")
    assert hidden.hide("the word is correct h…", mark="…") == "the word is [secret]…"
    assert hidden.hide("the word is correct h") == "the word is [secret]"
    assert hidden.hide("the word is cor") == "the word is cor"
    assert hidden.hide("ect horse was the word") == "[secret] was the word"
    assert hidden.hide("nothing to see…", mark="…") == "nothing to see…"


def test_it_is_known_whether_there_are_any() -> None:
    assert not hiding()
    assert hiding("hunter2")
