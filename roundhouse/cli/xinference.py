"""The flags of `xinference launch` that have no flag of ours: taken where they ask for what is so, else refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

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
            raise click.UsageError(f"{said} {self.refusal}", context)


_SWITCH = {"is_flag": True}
_LIST = {"multiple": True}
_PAIRS = {"multiple": True, "nargs": 2}
_PLACED = "is not served, the cluster picks the GPUs: say how many with --gpu-count"

_FLAGS = (
    _Flag(("-e", "--endpoint"), "is not served: give --address HOST:PORT before the command"),
    _Flag(("-t", "--model-type"), "is not served yet: use LLM", ("llm",)),
    _Flag(("-s", "--size-in-billions"), "is not served, models are not fetched by name: give --model-path"),
    _Flag(("-f", "--model-format"), "is not served, models are not fetched by name: give --model-path", ("pytorch",)),
    _Flag(("-qc", "--quantization-config"), "is not served yet: give --model-path of a model as it is", (), _PAIRS),
    _Flag(("--n-gpu",), "asks for gpus_per_replica other than 1, which is not served yet: use 1", ("1", "auto")),
    _Flag(("--gpu-idx",), _PLACED),
    _Flag(("--worker-ip",), _PLACED),
    _Flag(("--n-worker",), "is not served yet, a replica is on one node: use 1", ("1",)),
    _Flag(("-lm", "--lora-modules"), "is not served yet: give --model-path of a merged model", (), _PAIRS),
    _Flag(("-ld", "--image-lora-load-kwargs"), "is not served yet: leave it out", (), _PAIRS),
    _Flag(("-fd", "--image-lora-fuse-kwargs"), "is not served yet: leave it out", (), _PAIRS),
    _Flag(("--trust-remote-code",), "is not served, code of models never runs: use false", ("false", "0", "no")),
    _Flag(("-ak", "--api-key"), "is not served, there are no keys: leave it out"),
    _Flag(("--enable-thinking",), "is not served yet, the model's own template decides: leave it out", (), _SWITCH),
    _Flag(("--enable-virtual-env",), "is not served, engines share the node's Python: leave it out", (), _SWITCH),
    _Flag(("--disable-virtual-env",), "", ("true",), _SWITCH),
    _Flag(("-vp", "--virtual-env-package"), "is not served: install it where the node agent runs", (), _LIST),
    _Flag(("--virtual-env-find-link",), "is not served: install it where the node agent runs", (), _LIST),
)


def xinference_flags(command: Command) -> Command:
    """Gives a command the flags. None of them reaches it, and its help does not list them."""
    for each in reversed(_FLAGS):
        option = click.option(
            *each.names, callback=each.check, expose_value=False, hidden=True, **(each.shape or {"type": str})
        )
        command = option(command)
    return command
