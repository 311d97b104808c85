"""A node keeps its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.identity import default_id, load, machine_id
from roundhouse.kit.errors import Usage
from roundhouse.kit.names import is_id

UID = "0badcafe-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("gpu-7", "gpu-7"),
        ("gpu7.example.org", "gpu7-example-org-0badca"),
        ("GPU_7", "gpu-7-0badca"),
        ("7seas", "node-7seas-0badca"),
        ("-", "node-0badca"),
        ("", "node-0badca"),
        ("h" * 80, "h" * 56 + "-0badca"),
        ("größe", "gr-e-0badca"),
    ],
)
def test_the_name_of_a_host_becomes_an_id(hostname: str, expected: str) -> None:
    assert default_id(hostname, UID) == expected
    assert is_id(expected)


def test_a_node_keeps_id_and_uid_for_the_life_of_its_state_directory(tmp_path: Path) -> None:
    first = load(tmp_path, None)
    assert is_id(first.node_id)
    assert load(tmp_path, None) == first


def test_an_id_that_was_chosen_need_not_be_chosen_again(tmp_path: Path) -> None:
    first = load(tmp_path, "gpu-7")
    assert first.node_id == "gpu-7"
    assert load(tmp_path, None) == first


def test_a_state_directory_does_not_change_its_node(tmp_path: Path) -> None:
    load(tmp_path, "gpu-7")
    with pytest.raises(Usage, match='belongs to node "gpu-7", not to "gpu-8"'):
        load(tmp_path, "gpu-8")


def test_an_id_that_breaks_the_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="beginning with a letter"):
        load(tmp_path, "7seas")


def test_a_broken_file_is_not_replaced_in_silence(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(Usage, match=r"node\.json"):
        load(tmp_path, None)


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["no file", "an empty file", "an empty line"])
def test_a_machine_without_an_id_is_named_by_its_boot(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "machine-id"
    if content is not None:
        path.write_text(content)
    assert machine_id("boot", path) == "boot"


def test_a_machine_with_an_id_is_named_by_it(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("0123abcd\n")
    assert machine_id("boot", tmp_path / "machine-id") == "0123abcd"
