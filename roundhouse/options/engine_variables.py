"""Settings of an engine in the variables of an environment. The same for who sizes one and who runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from roundhouse.kit.config import parse_bool, parse_bytes, setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.times import to_duration
from roundhouse.options.engine_options import (
    BLOCK_SIZES,
    LONGEST_INTERVAL_S,
    METHODS,
    MOST_GUESSES,
    RANGES,
    violations,
)
from roundhouse.v1.deployment_pb2 import EngineOptions

AUTO = "auto"  # in place of a number: what fits


@dataclass(frozen=True, slots=True)
class Problem:
    """A variable that cannot be used, and why."""

    variable: str
    description: str


def options_in(environ: Mapping[str, str]) -> EngineOptions:
    """Returns what an environment sets; raises Usage for a variable that cannot be used."""
    options, problems = _read(environ)
    for each in problems:
        raise Usage(f"{each.variable}: {each.description}")
    return options


def problems_in(environ: Mapping[str, str]) -> list[Problem]:
    """Returns all that `options_in` would not take."""
    return _read(environ)[1]


def is_setting(variable: str) -> bool:
    """Tells whether a variable of this name sets an option."""
    return any(setting({variable: "x"}, each.name) is not None for each in _VARIABLES)


class _Unreadable(Exception):
    """A text that no option can take; the message says what to write."""


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable, by its name behind the prefix, and what its text does to the options."""

    name: str
    put: Callable[[EngineOptions, str], None]


def _read(environ: Mapping[str, str]) -> tuple[EngineOptions, list[Problem]]:
    options, problems = EngineOptions(), []
    for each in _VARIABLES:
        found = setting(environ, each.name)
        if found is None:
            continue
        variable, text = found
        alone = EngineOptions()
        try:
            each.put(alone, text)
        except _Unreadable as error:
            problems.append(Problem(variable, f'"{text[:100]}" cannot be used: {error}'))
        else:
            problems += [Problem(variable, wrong.description) for wrong in violations(alone)]
            options.MergeFrom(alone)
    return options, problems


def _number(field: str, most: int, cure: str) -> _Variable:
    def put(options: EngineOptions, text: str) -> None:
        value = _whole(text, most, cure)
        try:
            setattr(options, field, value)
        except ValueError as error:  # as many digits as the most that it may be, and more than its type holds
            raise _Unreadable(cure) from error

    return _Variable(field.upper(), put)


def _bounded(field: str) -> _Variable:
    low, high = RANGES[field]
    return _number(field, high, f"use a whole number, {low} to {high}")


def _or_auto(variable: _Variable, fitted: str) -> _Variable:
    """Returns a variable that may say, too, that what fits is to be taken."""

    def put(options: EngineOptions, text: str) -> None:
        if text == AUTO:
            setattr(options, fitted, True)
            return
        try:
            variable.put(options, text)
        except _Unreadable as error:
            raise _Unreadable(f"{error}, or {AUTO}") from error

    return _Variable(variable.name, put)


def _word(field: str) -> _Variable:
    return _Variable(field.upper(), lambda options, text: setattr(options, field, text))


def _switch(field: str) -> _Variable:
    def put(options: EngineOptions, text: str) -> None:
        try:
            setattr(options, field, parse_bool(text, field))
        except Usage as error:
            raise _Unreadable("use 1 or 0") from error

    return _Variable(field.upper(), put)


def _put_interval(options: EngineOptions, text: str) -> None:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) < 10**9:
        raise _Unreadable(f"use seconds, 0 to {LONGEST_INTERVAL_S:g}")
    options.batch_interval.CopyFrom(to_duration(seconds))


def _put_cache(options: EngineOptions, text: str) -> None:
    try:
        size = parse_bytes(text, "")
    except Usage as error:
        raise _Unreadable("write a size such as 24GiB or 512MiB") from error
    options.kv_cache_memory_bytes = min(size, RANGES["kv_cache_memory_bytes"][1])


def _put_method(options: EngineOptions, text: str) -> None:
    if text not in METHODS:
        raise _Unreadable(f"use one of {', '.join(METHODS)}")
    options.speculation.method = METHODS[text]


def _put_guesses(options: EngineOptions, text: str) -> None:
    options.speculation.token_count = _whole(text, MOST_GUESSES, f"use a whole number, 1 to {MOST_GUESSES}")


def _put_draft_model(options: EngineOptions, text: str) -> None:
    if not text.startswith("/"):
        raise _Unreadable("use an absolute path")
    options.speculation.draft_model.path = text


def _whole(text: str, most: int, cure: str) -> int:
    """Returns the number that a text is, if it has no more digits than `most`: what is longer is not even read."""
    digits = text.lstrip("0")
    if not text.isdecimal() or len(digits) > len(str(most)):
        raise _Unreadable(cure)
    return int(digits or "0")


_VARIABLES = (
    _or_auto(_bounded("max_model_len"), "fit_max_model_len"),
    _bounded("batch_size"),
    _Variable("BATCH_INTERVAL", _put_interval),
    _bounded("max_num_batched_tokens"),
    _or_auto(_Variable("KV_CACHE_MEMORY", _put_cache), "fit_kv_cache_memory"),
    _number("block_size", BLOCK_SIZES[-1], f"use one of {', '.join(map(str, BLOCK_SIZES))}"),
    _word("dtype"),
    _bounded("max_waiting"),
    _switch("enable_prefix_caching"),
    _word("attention"),
    _switch("compile"),
    _word("quantization"),
    _Variable("SPECULATION", _put_method),
    _Variable("SPECULATION_TOKENS", _put_guesses),
    _Variable("DRAFT_MODEL", _put_draft_model),
    _switch("enable_thinking"),
)
