"""Compiles the CPU kernels while a wheel or an editable installation is made. Without a compiler there are none.

What they are, and who chooses among them, is in engines/backends/torch_lm/kernels.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("engines/backends/torch_lm/kernels")
# No -ffast-math, and no contraction but where the source asks for it: NaNs and sums must come out as written.
FLAGS = ["-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
VARIANTS = {"generic": [], "avx2": AVX2, "avx512": [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]}
X86 = {"x86_64", "amd64"}


class KernelsHook(BuildHookInterface[Any]):
    """Adds one library for each set of instructions."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - for all versions
        """Compiles, and makes the wheel one for this platform if there is something to ship."""
        built = [path for path in self._compile() if path is not None]
        if built:
            build_data["artifacts"] += [f"/{path.relative_to(self.root)}" for path in built]
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002 - of all versions
        """Removes what was compiled."""
        for path in self._folder.glob("*.so"):
            path.unlink()

    @property
    def _folder(self) -> Path:
        return Path(self.root, KERNELS, "lib")

    def _compile(self) -> list[Path | None]:
        self._folder.mkdir(exist_ok=True)
        names = list(VARIANTS) if platform.machine().lower() in X86 else ["generic"]
        return [self._finished(*each) for each in [self._started(name) for name in names]]

    def _started(self, name: str) -> tuple[str, Path, subprocess.Popen[str] | OSError]:
        # Written beside and renamed: an engine may be running with the library that was there before.
        new = self._folder / f".{name}.so.{os.getpid()}"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        sources = sorted(map(str, Path(self.root, KERNELS, "src").glob("*.c")))
        command = [*compiler, *FLAGS, *VARIANTS[name], *sources, "-o", str(new), "-lm"]
        try:
            return name, new, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            return name, new, error

    def _finished(self, name: str, new: Path, compiling: subprocess.Popen[str] | OSError) -> Path | None:
        library = self._folder / f"{name}.so"
        if isinstance(compiling, OSError):
            problem = str(compiling)
        else:
            _, problem = compiling.communicate()
            if compiling.returncode == 0:
                return new.replace(library)
        new.unlink(missing_ok=True)
        library.unlink(missing_ok=True)  # made of other sources
        line = problem.strip().partition("\n")[0]
        self.app.display_warning(f"no {name} CPU kernels: they were not compiled ({line}); plain torch stands in")
        return None
