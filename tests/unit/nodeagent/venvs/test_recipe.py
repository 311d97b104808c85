"""An environment is named by all that decides what it holds, however that is written down."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent.venvs.recipe import Recipe, distributions, inherited_directories, normalized, recipe_of
from roundhouse.v1.deployment_pb2 import VirtualEnv

SAME = {
    "case and dashes": (["Foo_Bar==1.0"], ["foo-bar==1.0"]),
    "blanks": (["foo >= 1 , < 2"], ["foo<2,>=1"]),
    "order": (["b", "a"], ["a", "b"]),
    "repetition": (["a", "a"], ["a"]),
    "extras": (["foo[b,a]"], ["foo[a,b]"]),
    "markers": (["foo;python_version>='3.11'"], ['foo; python_version >= "3.11"']),
}
BASE = VirtualEnv(packages=["foo==1"], index_url="https://host/simple")
ENVIRON = {"PATH": "/bin"}
OTHERS: dict[str, tuple[VirtualEnv, dict[str, str]]] = {
    "another version": (VirtualEnv(packages=["foo==2"], index_url="https://host/simple"), {}),
    "a constraint": (VirtualEnv(packages=["foo==1"], constraints=["bar<3"], index_url="https://host/simple"), {}),
    "another index": (VirtualEnv(packages=["foo==1"]), {}),
    "another index of the agent": (BASE, {"UV_INDEX": "https://other/simple"}),
    "links": (VirtualEnv(packages=["foo==1"], index_url="https://host/simple", find_links=["/wheels"]), {}),
    "nothing inherited": (VirtualEnv(packages=["foo==1"], index_url="https://host/simple", inherit=False), {}),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_the_same_requirements_are_the_same_however_they_are_spelt(one: list[str], other: list[str]) -> None:
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(("wanted", "more"), OTHERS.values(), ids=OTHERS)
def test_what_would_hold_something_else_has_another_key(wanted: VirtualEnv, more: dict[str, str]) -> None:
    assert recipe_of(wanted, ENVIRON | more).key() != recipe_of(BASE, ENVIRON).key()


@pytest.mark.parametrize("name", ["python_version", "platform", "python"])
def test_another_python_or_machine_has_another_key(name: str) -> None:
    recipe = recipe_of(BASE, ENVIRON)
    assert replace(recipe, **{name: "other"}).key() != recipe.key()  # type: ignore[arg-type]


def test_what_is_inherited_counts_and_only_if_it_is(tmp_path: Path) -> None:
    def key(*, inherit: bool) -> str:
        return recipe_of(VirtualEnv(packages=["foo"], inherit=inherit), {"PYTHONPATH": str(tmp_path)}).key()

    before = key(inherit=True), key(inherit=False)
    (tmp_path / "bar-1.0.dist-info").mkdir()
    after = key(inherit=True), key(inherit=False)
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_inheriting_is_what_happens_unless_it_is_said_otherwise() -> None:
    assert (
        recipe_of(BASE, ENVIRON).key()
        == recipe_of(VirtualEnv(packages=["foo==1"], index_url="https://host/simple", inherit=True), ENVIRON).key()
    )


def test_a_password_decides_nothing() -> None:
    def recipe(secret: str) -> Recipe:
        environ = {"UV_EXTRA_INDEX_URL": f"https://{secret}@host/more"}
        return recipe_of(VirtualEnv(packages=["foo"], index_url=f"https://{secret}@host/simple"), environ)

    assert recipe("me:old").key() == recipe("me:new").key()
    assert recipe("me:old").sources == (("UV_EXTRA_INDEX_URL", "https://***@host/more"),)


def test_inherited_is_what_the_path_of_python_names_and_what_it_has_installed(tmp_path: Path) -> None:
    found = inherited_directories({"PYTHONPATH": f"{tmp_path}:/no/such/directory::{tmp_path}"})
    assert found[0] == str(tmp_path)
    assert len(found) == len(set(found))
    assert any(each.startswith(sys.prefix) for each in found)
    assert str(Path.cwd()) not in found


def test_of_a_package_in_two_directories_the_first_counts(tmp_path: Path) -> None:
    for directory, version in (("a", "1"), ("b", "2")):
        (tmp_path / directory / f"Foo_Bar-{version}.dist-info").mkdir(parents=True)
    (tmp_path / "b/baz-3.dist-info").mkdir()
    found = distributions([str(tmp_path / "a"), str(tmp_path / "b")])
    assert sorted(each.name for each in found) == ["Foo_Bar-1.dist-info", "baz-3.dist-info"]
