"""Says in a sentence why an environment could not be built, from what uv or Python printed. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roundhouse.kit.urls import redacted

MOST_SAID = 400  # characters of what was printed
_END_SAID = 120  # of them, at the end
_FRAME = re.compile(r"^[\s│├╰─▶×]+")  # in which uv draws its errors
_CURES = (
    (("No space left on device", "os error 28"), "free some of the disk, or give the node agent another --venv-dir"),
    (("network was disabled", "network connectivity is disabled"),
     "unset UV_OFFLINE of the node agent, or name directories that have the packages in find_links"),
    (("error sending request", "Failed to fetch", "dns error", "tcp connect", "timed out", "Connection refused"),
     "check index_url, and the network of the node"),
    (("No solution found", "Failed to parse", "not a valid"), "correct packages or constraints"),
)  # fmt: skip


def why_not(lines: Sequence[str], otherwise: str) -> str:
    """Returns what was printed from the first error on, shortened, and the cure; `otherwise` if none is known."""
    begins = next((index for index, line in enumerate(lines) if _is_error(line)), max(0, len(lines) - 3))
    said = " ".join(" ".join(bare(each) for each in lines[begins:]).split())
    cure = next((cure for signs, cure in _CURES if any(sign in said for sign in signs)), otherwise)
    return f"{shortened(said.removeprefix('error: '))}: {cure}"


def lacks(lines: Sequence[str], *, inherits: bool) -> str:
    """Returns what an engine would miss in an environment, from the traceback of what it imports."""
    last = next((each.strip() for each in reversed(lines) if each.strip()), "nothing was said")
    cure = "name versions in packages that go together" if inherits else "add it to packages, or set inherit"
    return f"an engine cannot run in it ({shortened(last)}): {cure}"


def bare(line: str) -> str:
    """Returns a line without the frame around it, and without passwords."""
    return redacted(_FRAME.sub("", line).rstrip().rstrip(":"))


def shortened(text: str) -> str:
    """Returns a text of at most MOST_SAID characters: how it begins, and how it ends, which is often the cause."""
    return text if len(text) <= MOST_SAID else f"{text[: MOST_SAID - _END_SAID - 1]}…{text[-_END_SAID:]}"


def _is_error(line: str) -> bool:
    return line.startswith("error:") or line.lstrip().startswith("×")
