"""Brings plans to the device: one copy for each step, from memory that the step before does not use."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from engines.backends.torch_lm.cuda.kernels.sizes import QUERY_TILE
from engines.backends.torch_lm.cuda.machine import Machine, Mark
from engines.backends.torch_lm.cuda.plan import Plan
from engines.backends.torch_lm.cuda.tables import Tables

_ALIGNMENT = 4  # numbers: kernels are compiled for addresses that 16 divides, and are not compiled again
_ARRAYS = [field.name for field in fields(Plan) if field.name != "single_count"]


@dataclass(frozen=True, slots=True)
class Staged:
    """A plan on the device, until the next one comes."""

    ids: Tensor  # [tokens]
    positions: Tensor  # [tokens]
    wanted: Tensor
    tables: Tables


class Staging:
    """Holds one plan on the device, and two on the host: one is copied while the next one is written."""

    def __init__(self, machine: Machine, *, tokens: int, sequences: int, width: int) -> None:
        """Takes the most of each that a plan may have. width: blocks of one sequence."""
        tiles = tokens // QUERY_TILE + sequences
        count = 4 * tokens + 3 * sequences + 1 + 2 * tiles + sequences * width + 1 + len(_ARRAYS) * _ALIGNMENT
        self._machine = machine
        self._hosts = [machine.host_numbers(count) for _ in range(2)]
        self._copied: list[Mark] = [machine.mark() for _ in range(2)]
        self._device = self._hosts[0].to(machine.device, copy=True)

    def bring(self, plan: Plan) -> Staged:
        """Copies a plan. Where its arrays are is a matter of their lengths, and not of that of `blocks`."""
        self._hosts.reverse()
        self._copied.reverse()
        self._copied[0].synchronize()
        numbers = self._hosts[0].numpy()
        begin, end = 0, 0
        views: dict[str, Tensor] = {}
        for name in _ARRAYS:
            array = getattr(plan, name)
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = begin + len(array)
            assert end <= len(numbers), f"a step of {len(plan.ids)} tokens has no place in {len(numbers)} numbers"
            numbers[begin:end] = array
            views[name] = self._device[begin:end]
        self._device[:end].copy_(self._hosts[0][:end], non_blocking=True)
        self._copied[0] = self._machine.mark()
        views["blocks"] = self._device[begin:]  # a captured step finds as many there as any later one has
        tables = {field.name: views[field.name] for field in fields(Tables) if field.name in views}
        return Staged(
            views["ids"], views["positions"], views["wanted"], Tables(**tables, single_count=plan.single_count)
        )
