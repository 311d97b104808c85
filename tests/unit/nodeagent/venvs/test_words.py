"""What uv prints becomes one sentence that ends with the cure."""

from __future__ import annotations

import pytest

from nodeagent.venvs.words import MOST_SAID, lacks, why_not

CASES: dict[str, tuple[list[str], str]] = {
    "does not resolve": (
        [
            "Using Python 3.11.7 environment at: x",
            "error: No solution found when resolving dependencies",
            "  cause: Because foo was not found in the package registry, your requirements are unsatisfiable.",
        ],
        "No solution found when resolving dependencies cause: Because foo was not found in the package registry, your "
        "requirements are unsatisfiable.: correct packages or constraints",
    ),
    "does not resolve, in a frame": (
        ["  × No solution found when resolving dependencies:", "  ╰─▶ Because only foo<=2 is available …"],
        "No solution found when resolving dependencies Because only foo<=2 is available …: correct packages or "
        "constraints",
    ),
    "out of reach": (
        ["error: Request failed after 3 retries", "  cause: error sending request for url (http://me:pw@host/simple/)"],
        "Request failed after 3 retries cause: error sending request for url (http://***@host/simple/): check "
        "index_url, and the network of the node",
    ),
    "offline": (
        ["error: No solution found when resolving dependencies", "hint: Packages … because the network was disabled."],
        "No solution found when resolving dependencies hint: Packages … because the network was disabled.: unset "
        "UV_OFFLINE of the node agent, or name directories that have the packages in find_links",
    ),
    "full": (
        ["error: Failed to install: foo.whl", "  cause: failed to write: No space left on device (os error 28)"],
        "Failed to install: foo.whl cause: failed to write: No space left on device (os error 28): free some of the "
        "disk, or give the node agent another --venv-dir",
    ),
    "anything else": (["a", "b", "c", "d"], "b c d: see the log"),
    "nothing": ([], ": see the log"),
}


@pytest.mark.parametrize(("lines", "sentence"), CASES.values(), ids=CASES)
def test_what_uv_prints_is_said_with_the_cure(lines: list[str], sentence: str) -> None:
    assert why_not(lines, "see the log") == sentence


def test_a_long_story_is_cut_and_the_cure_is_not() -> None:
    said = why_not(["error: No solution found", "because " * 1000, "of that"], "")
    assert len(said) <= MOST_SAID + 50
    assert said.startswith("No solution found because because")
    assert said.endswith("because of that: correct packages or constraints")
    assert "…" in said


@pytest.mark.parametrize(
    ("inherits", "cure"),
    [(True, "name versions in packages that go together"), (False, "add it to packages, or set inherit")],
)
def test_what_an_engine_would_miss_is_named(inherits: bool, cure: str) -> None:
    lines = ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'torch'", ""]
    said = f"an engine cannot run in it (ModuleNotFoundError: No module named 'torch'): {cure}"
    assert lacks(lines, inherits=inherits) == said
