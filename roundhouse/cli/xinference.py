"""The flags of `xinference launch` that have no flag of ours: taken where they ask for what is so, else refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from roundhouse.kit.errors import NotServed

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Flag:
    """A flag, why it is refused, and the values with which it is not, in lower case."""

    names: Sequence[str]
    refusal: str
    taken: Sequence[str] = ()
    shape: Any = None  # attributes for click; one value if absent

    def check(self, context: click.Context, parameter: click.Parameter, value: object) -> None:
        assert parameter.name is not None
        is_given = context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
        if is_given and str(value).lower() not in self.taken:
            said = f"{self.names[-1]} {value}" if isinstance(value, str) else self.names[-1]
            raise click.UsageError(f"{said} {self.refusal}")


_PAIRS = {"multiple": True, "nargs": 2}
_TYPES = {
    "embedding": "no engine computes embeddings",
    "rerank": "no engine ranks texts",
    "image": "no engine makes images",
    "audio": "no engine hears or speaks",
    "video": "no engine makes videos",
    "flexible": "code of users does not run here",
}

_FLAGS = (
    _Flag(("-qc", "--quantization-config"), "is not served yet: give --model-path of a model as it is", (), _PAIRS),
    _Flag(("--n-worker",), "is not served yet, a replica is on one node: use 1", ("1",)),
    _Flag(("-lm", "--lora-modules"), "is not served yet: give --model-path of a merged model", (), _PAIRS),
    _Flag(("-ld", "--image-lora-load-kwargs"), "is not served yet: leave it out", (), _PAIRS),
    _Flag(("-fd", "--image-lora-fuse-kwargs"), "is not served yet: leave it out", (), _PAIRS),
    _Flag(("--trust-remote-code",), "is not served, code of models never runs: use false", ("false", "0", "no")),
    _Flag(("-ak", "--api-key"), "is not served, there are no keys: leave it out"),
)


def _language(text: str) -> str:
    """Reads a type of model, and takes language models only."""
    kind = text.lower()
    if kind in _TYPES:
        raise NotServed(f"--model-type {text} is not served yet, {_TYPES[kind]}: use LLM")
    if kind != "llm":
        raise click.BadParameter(f'"{text}" is unknown: use LLM')
    return kind


def xinference_flags(command: Command) -> Command:
    """Gives a command the flags. None of them reaches it, and its help does not list them."""
    for each in reversed(_FLAGS):
        option = click.option(
            *each.names, callback=each.check, expose_value=False, hidden=True, **(each.shape or {"type": str})
        )
        command = option(command)
    kind = click.option("-t", "--model-type", type=_language, expose_value=False, hidden=True)
    return kind(command)
