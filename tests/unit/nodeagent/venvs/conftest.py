"""A folder of small packages, and environments that are built of them by the real uv, without any network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nodeagent.venvs.venvs import Venvs
from tests.support.wheels import write_wheel

Make = Callable[..., Venvs]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    for version in ("1.0", "2.0"):
        write_wheel(folder, "acme", version)
    write_wheel(folder, "coyote", "1.0", requires=["acme<2"])
    write_wheel(folder, "templates", "1.0", requires=["jinja2>=3"])
    write_wheel(folder, "elsewhere", "1.0", tag="cp311-cp311-win_amd64")
    write_wheel(folder, "engines", "1.0")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes environments of one node, as one more agent there, with more variables if need be."""

    def make(*, needs: tuple[str, ...] = ("engines", "roundhouse"), **more: str) -> Venvs:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
        environ = {**kept, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1", **more}
        return Venvs(tmp_path / "venvs", environ, needs)

    return make
