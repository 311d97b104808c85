"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


def described(root: Path, cores: Sequence[int]) -> Mapping[str, object]:
    """Returns the machine, the time and the commit, in words and numbers."""
    cpu = _cpu()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(root),
        "cpu": cpu.get("model name", platform.processor()),
        "cpu_features": [name for name in _CPU_FEATURES if name in cpu.get("flags", "").split()],
        "cores": list(cores),
        "core_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
        "has_energy": joules() is not None,
    }


def commit(root: Path) -> str:
    """Returns the abbreviated commit, with `+` behind it if files differ from it; `unknown` outside a repository."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=8", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def joules() -> float | None:
    """Returns what the processor's packages have taken since some time; None if that cannot be read."""
    try:
        counters = [path / "energy_uj" for path in _POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1]
        return sum(int(counter.read_text()) for counter in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None


def busy_s(cores: Sequence[int]) -> float:
    """Returns the seconds that these cores were not idle since some time, what a hypervisor took among them."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return 0.0
    counters = {line[0]: list(map(int, line[1:9])) for line in lines if line[0].startswith("cpu")}
    # Of user, nice, system, idle, waiting, interrupts, soft interrupts, stolen: all but idle and waiting.
    ticks = [sum(counters[name][:3]) + sum(counters[name][5:]) for core in cores if (name := f"cpu{core}") in counters]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _cpu() -> Mapping[str, str]:
    """Returns what /proc says about the first core."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
