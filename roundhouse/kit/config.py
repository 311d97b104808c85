"""Settings from the environment, and the units people write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from roundhouse.kit.errors import Usage

PREFIX = "ROUNDHOUSE_"
# Names that Xinference reads; a script that sets them goes on working here.
ALIASES: Mapping[str, str] = {
    "ALLOW_MULTI_REPLICA_PER_GPU": "XINFERENCE_ALLOW_MULTI_REPLICA_PER_GPU",
    "LAUNCH_STRATEGY": "XINFERENCE_LAUNCH_STRATEGY",
    "BATCH_SIZE": "XINFERENCE_BATCH_SIZE",
    "BATCH_INTERVAL": "XINFERENCE_BATCH_INTERVAL",
    "TEXT_TO_IMAGE_BATCHING_SIZE": "XINFERENCE_TEXT_TO_IMAGE_BATCHING_SIZE",
}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\Z", re.IGNORECASE)
_MAX_SHOWN = 100  # characters; a number without end helps nobody
_UNITS = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def setting(environ: Mapping[str, str], name: str) -> tuple[str, str] | None:
    """Returns (variable, value) of `ROUNDHOUSE_<name>`, else of its alias; None if neither says anything."""
    for variable in (PREFIX + name, ALIASES.get(name)):
        if variable is not None and environ.get(variable):
            return variable, environ[variable]
    return None


def parse_bool(text: str, where: str) -> bool:
    """Returns what `text` says; raises Usage, naming `where`, if it is no truth value."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise Usage(f'{where} is "{text}": use 1 or 0')


def parse_bytes(text: str, where: str) -> int:
    """Returns bytes for `24GiB`, `512 MiB`, `80G` or `1000`; raises Usage, naming `where`, for anything else."""
    found = _SIZE.match(text.strip())
    if found is None:
        raise Usage(f'{where} is "{text}": write a size such as 24GiB or 512MiB')
    unit = found[2].lower().removesuffix("b")
    scale = 1024 ** ("kmgt".index(unit[0]) + 1) if unit.endswith("i") and len(unit) == 2 else _UNITS.get(unit)
    if scale is None:
        raise Usage(f'{where} is "{text}": write a size such as 24GiB or 512MiB')
    if (size := float(found[1]) * scale) == math.inf:
        raise Usage(f'{where} is "{text[:_MAX_SHOWN]}...": write a size such as 24GiB or 512MiB')
    return int(size)
