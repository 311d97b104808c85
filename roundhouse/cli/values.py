"""What a flag may hold beyond what click checks: times that a clock can count, numbers that the contract can carry."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from roundhouse.kit.config import parse_bytes
from roundhouse.kit.errors import Usage

_MAX_SECONDS = 315_576_000_000  # ten thousand years, all that a `Duration` can say
_MAX_INT32 = 2**31 - 1
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str | float) -> float:
    """Reads a time to wait, as the type of a flag."""
    value = float(click.FLOAT(text))
    if not 0 <= value <= _MAX_SECONDS:  # which nan is neither
        raise click.BadParameter(f"{text} is no time to wait: give seconds from 0 to {_MAX_SECONDS}")
    return value


def ago(text: str | float) -> float:
    """Reads how long ago something was, such as `90`, `90s`, `5m`, `2h` or `1d`, as the type of a flag; in seconds."""
    return _span(text, "time to look back")


def lifetime(text: str | float) -> float:
    """Reads how long something is good, written alike, as the type of a flag; in seconds."""
    return _span(text, "length of time")


def _span(text: str | float, what: str) -> float:
    found = _AGO.fullmatch(str(text))
    if found is None:
        raise click.BadParameter(f'"{text}" is no {what}: write seconds, or 90s, 5m, 2h, 1d')
    return seconds(found[1]) * _UNITS_S[found[2] or "s"]


def int32(text: str | int) -> int:
    """Reads a number of 32 bits, as the type of a flag; what else it may be is for the cluster to say."""
    value = int(click.INT(text))
    if abs(value) > _MAX_INT32:
        raise click.BadParameter(f"{text} is out of range: the largest number is {_MAX_INT32}")
    return value


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Reads a size such as `5GiB`, as the callback of a flag."""
    try:
        return None if value is None else parse_bytes(value, parameter.opts[-1])
    except Usage as error:
        raise click.UsageError(error.message, context) from error


def pairs(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Reads labels such as `team=search`, as the callback of a flag."""
    labels = {}
    for each in values:
        key, equals, text = each.partition("=")
        if not (key and equals):
            raise click.UsageError(f'{parameter.opts[-1]} is "{each}": write KEY=VALUE', context)
        labels[key] = text
    return labels


def check_text(arguments: Iterable[str]) -> None:
    """Raises UsageError for an argument that is not UTF-8: the contract, and JSON, carry nothing else."""
    for each in arguments:
        try:
            each.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(each).decode(errors="backslashreplace")
            raise click.UsageError(f'the argument "{shown}" is not UTF-8: write it in UTF-8') from error


def read_input() -> str:
    """Returns standard input to its end; raises UsageError if that is not UTF-8."""
    return "".join(input_lines())


def input_lines() -> Iterator[str]:
    """Yields standard input by the line; raises UsageError if that is not UTF-8."""
    try:
        for line in sys.stdin:
            line.encode()  # in some locales Python lets bytes through that are no text
            yield line
    except UnicodeError as error:
        raise click.UsageError("standard input is not UTF-8: give text in UTF-8") from error
