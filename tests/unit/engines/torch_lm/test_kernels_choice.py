"""Which kernels a machine gets, and what happens where none were compiled."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from engines.backends.torch_lm.kernels.choose import VARIABLE, available, choose
from roundhouse.kit.errors import InvalidArgument, NotServed

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[4]
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@needs_a_compiler
def test_the_best_that_works_here_is_taken() -> None:
    assert "generic" in available()
    assert choose("auto", CPU).name == choose("c", CPU).name == available()[0]


@needs_a_compiler
def test_one_can_be_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "generic")
    assert choose("auto", CPU).name == "generic"


def test_plain_torch_can_be_asked_for_and_stands_in_where_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("torch", CPU).name == "torch"
    monkeypatch.setenv(VARIABLE, "none")
    assert choose("auto", CPU).name == "torch"
    with pytest.raises(NotServed, match="compiler"):
        choose("c", CPU)


@pytest.mark.parametrize(("attention", "device"), [("triton", "cpu"), ("flash", "cpu"), ("c", "cuda")])
def test_what_does_not_work_on_a_device_is_refused(attention: str, device: str) -> None:
    with pytest.raises(InvalidArgument, match=f'attention "{attention}" does not work on {device}'):
        choose(attention, torch.device(device))


def wheel_of(tmp_path: Path, compiler: str) -> tuple[Path, str]:
    """Builds a wheel of a copy of this project, and returns it and what was said."""
    copy = tmp_path / "project"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.safetensors", "corpus")
    for folder in ("engines", "roundhouse", "controlplane", "nodeagent"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    environment = {**os.environ, "CC": compiler}
    built = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=True)
    return next((copy / "dist").glob("*.whl")), built.stdout + built.stderr


def test_a_wheel_has_the_libraries_and_says_for_which_platform(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('while [ "$1" != -o ]; do shift; done; echo compiled > "$2"')
    wheel, _ = wheel_of(tmp_path, f"sh {compiler}")
    libraries = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")}
    assert libraries == ({"generic.so", "avx2.so", "avx512.so"} if IS_X86 else {"generic.so"})
    assert "-py3-none-linux_" in wheel.name


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_is_a_wheel_for_every_platform_and_a_warning(tmp_path: Path, compiler: str) -> None:
    wheel, said = wheel_of(tmp_path, compiler)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert "plain torch stands in" in said
