"""The flags and variables by which an operator sets how requests wait for their turn."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from controlplane.model import EVERYBODY_ELSE, AdmissionSettings, Quota
from roundhouse.kit.config import setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.names import is_id

_MOST = 1_000_000_000
_LEAST_WEIGHT, _MOST_WEIGHT = 0.001, 1000.0
_T = TypeVar("_T")
_DEFAULT = AdmissionSettings()


def add_admission(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `admission_of` reads."""
    add = parser.add_argument
    add(
        "--queue-requests",
        metavar="N",
        help=f"requests that may wait for one deployment, 0 to {_MOST}; default: {_DEFAULT.queue_requests}",
    )
    add("--queue-tokens", metavar="N", help=f"tokens of those that wait, likewise; default: {_DEFAULT.queue_tokens}")
    add(
        "--tenant-weight",
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help="how large a tenant's share is beside those of others; 1 if not said; "
        "* for all that are not named; may be repeated",
    )
    add(
        "--tenant-quota",
        action="append",
        default=[],
        metavar="NAME=REQUESTS/S,TOKENS/MIN",
        help="what a tenant may use at this gateway, for example search=10,200000; leave out what is not bounded; "
        "* for each that is not named; may be repeated. Each of several gateways counts for itself, and lets as much "
        "wait: nothing is divided among those of --gateways",
    )


def admission_of(parsed: argparse.Namespace, environ: Mapping[str, str]) -> AdmissionSettings:
    """Returns the settings: of each number and each tenant the flag's, else the environment's, else the default.

    Raises Usage with one readable line.
    """
    return AdmissionSettings(
        queue_requests=_count(parsed.queue_requests, "--queue-requests", environ, _DEFAULT.queue_requests),
        queue_tokens=_count(parsed.queue_tokens, "--queue-tokens", environ, _DEFAULT.queue_tokens),
        weights=_by_tenant(parsed.tenant_weight, "--tenant-weight", environ, _weight),
        quotas=_by_tenant(parsed.tenant_quota, "--tenant-quota", environ, _quota),
    )


def _count(given: str | None, flag: str, environ: Mapping[str, str], default: int) -> int:
    found = (flag, given) if given is not None else setting(environ, _variable(flag))
    if found is None:
        return default
    where, text = found
    count = _number(text)
    if count is None or not 0 <= count <= _MOST or count != int(count):
        raise Usage(f'{where} is "{text}": use a whole number from 0 to {_MOST}')
    return int(count)


def _by_tenant(
    given: Sequence[str], flag: str, environ: Mapping[str, str], parse: Callable[[str, str], _T]
) -> dict[str, _T]:
    found = setting(environ, _variable(flag, plural="S"))
    sources = [(each, flag) for each in given]
    if found is not None:
        sources = [*((each, found[0]) for each in found[1].split()), *sources]
    values: dict[str, _T] = {}
    for text, where in sources:
        name, equals, value = text.partition("=")
        if not equals or not (name == EVERYBODY_ELSE or is_id(name)):
            raise Usage(f'{where} "{text}" names no tenant: write NAME=..., or *=... for all others')
        values[name] = parse(value, f'{where} "{text}"')
    return values


def _weight(text: str, where: str) -> float:
    weight = _number(text)
    if weight is None or not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise Usage(f"{where} has no weight: use a number from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}")
    return weight


def _quota(text: str, where: str) -> Quota:
    parts = [part.strip() for part in text.split(",")]
    numbers = [_number(part) if part else None for part in parts]
    is_read = all(number is not None and number > 0 for number, part in zip(numbers, parts, strict=True) if part)
    if len(parts) != 2 or not any(parts) or not is_read:
        raise Usage(f"{where} is no quota: write REQUESTS/S,TOKENS/MIN, for example 10,200000 or ,200000")
    return Quota(*numbers)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _variable(flag: str, *, plural: str = "") -> str:
    """Returns what a flag is called in the environment, behind the prefix."""
    return flag.removeprefix("--").replace("-", "_").upper() + plural
