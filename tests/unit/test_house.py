"""What is installed is what is declared, and what is shipped is what is here."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("roundhouse", "controlplane", "nodeagent", "engines")
COMPILED = ROOT / "engines/backends/torch_lm/kernels/src"  # goes into wheels as libraries only
LOCKS = sorted((ROOT / "requirements").rglob("*.txt"))
HASHED = [lock for lock in LOCKS if lock.name not in {"constraints.txt", "torch.txt"}]


def _pins(lock: Path) -> list[Requirement]:
    logical = lock.read_text().replace("\\\n", " ").splitlines()
    return [Requirement(line.split(" --hash")[0]) for line in logical if line and not line.startswith("#")]


@pytest.mark.parametrize("lock", HASHED, ids=lambda lock: lock.stem)
def test_every_pin_has_one_version_and_hashes(lock: Path) -> None:
    logical = lock.read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in logical if line and not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if not re.match(r"[\w.-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", pin)] == []


@pytest.mark.parametrize("lock", [*LOCKS, ROOT / "tests/node/package-lock.json"], ids=lambda lock: lock.name)
def test_no_lock_says_where_packages_come_from(lock: Path) -> None:
    assert re.findall(r'"resolved"|--(?:extra-)?index-url|--find-links| @ |file:', lock.read_text()) == []


def test_the_lock_fulfils_what_the_distribution_asks_for() -> None:
    pins = [*_pins(ROOT / "requirements/lock.txt"), *_pins(ROOT / "requirements/torch.txt")]
    locked = {pin.name: next(iter(pin.specifier)).version for pin in pins if not pin.marker or pin.marker.evaluate()}
    extras = PROJECT["optional-dependencies"]
    asked = map(Requirement, [*PROJECT["dependencies"], *extras["torch"], *extras["dev"]])
    unmet = [str(ask) for ask in asked if not ask.specifier.contains(locked.get(ask.name, "0"))]
    assert unmet == [], "run `make lock`"


def test_the_wheel_ships_every_file_of_the_packages_but_sources_in_c_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("*.whl")
    shipped = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and COMPILED not in path.parents
    }
    assert shipped == here
