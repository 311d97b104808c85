"""What the makers of a model recommend, and which ids end its outputs; refuses values that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1 import errors_pb2

_NAME = "generation_config.json"
_SHOWN = 60  # characters of a bad value that a message repeats


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """What the generation config says; None where it says nothing. Numbers are within the bounds of a request's."""

    temperature: float | None  # 0 if it says to take the likeliest
    top_p: float | None
    top_k: int | None  # 0 keeps all
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    end_ids: frozenset[int] | None


def read_generation_config(directory: Path) -> GenerationConfig:
    """Returns what the generation config of a model directory says. Raises InvalidArgument (MODEL_BROKEN)."""
    file = _File(directory / _NAME)
    is_greedy = file.value("do_sample", _is_bool, "true or false") is False
    temperature = file.value("temperature", lambda value: _is_number(value) and 0 <= value <= 2, "a number in [0, 2]")
    top_k = file.value("top_k", _is_int, "a whole number")
    return GenerationConfig(
        temperature=0.0 if is_greedy else temperature,
        top_p=file.value("top_p", lambda value: _is_number(value) and 0 < value <= 1, "a number in (0, 1]"),
        top_k=None if top_k is None else max(top_k, 0),  # some write -1 for all
        min_p=file.value("min_p", lambda value: _is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
        typical_p=file.value("typical_p", lambda value: _is_number(value) and 0 < value <= 1, "a number in (0, 1]"),
        repetition_penalty=file.value(
            "repetition_penalty", lambda value: _is_number(value) and 0 < value <= 2, "a number in (0, 2]"
        ),
        end_ids=_end_ids(file),
    )


def end_ids(directory: Path) -> frozenset[int]:
    """Returns the ids that end an output: those of the generation config, else of the config, as transformers does.

    Raises InvalidArgument (MODEL_BROKEN).
    """
    own = read_generation_config(directory).end_ids
    return own if own is not None else _end_ids(_File(directory / "config.json")) or frozenset()


class _File:
    """The object in a JSON file, with nothing in it if there is no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: Mapping[str, Any] = {}
        if not path.is_file():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self._broken(f"cannot be read ({error}): repair the model directory") from error
        if not isinstance(content, dict):
            raise self._broken("is no JSON object: repair the model directory")
        self._content = content

    def value(self, name: str, holds: Callable[[Any], bool], meant: str) -> Any:
        """Returns the value of a field, None if there is none. `meant` says in words what holds."""
        value = self._content.get(name)
        if value is not None and not holds(value):
            shown = json.dumps(value)[:_SHOWN]
            raise self._broken(f"says that {name} is {shown}: make it {meant}, or leave it out")
        return value

    def _broken(self, what: str) -> InvalidArgument:
        text = f'{self._path.name} in "{self._path.parent}" {what}'
        return InvalidArgument(text, reason=errors_pb2.ERROR_REASON_MODEL_BROKEN)


def _end_ids(file: _File) -> frozenset[int] | None:
    ends = file.value("eos_token_id", _are_ids, "an id or a list of ids")
    return None if ends is None else frozenset([ends] if isinstance(ends, int) else ends)


def _are_ids(value: object) -> bool:
    return _is_int(value) or (isinstance(value, list) and all(_is_int(each) for each in value))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)
