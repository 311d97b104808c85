"""Shows replicas on their way while a command waits for them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from roundhouse.cli.output import console, short_enum, state_text
from roundhouse.cli.replicas import done, note, where
from roundhouse.cli.tables import table
from roundhouse.cli.units import format_age
from roundhouse.client import Progress
from roundhouse.client.names import deployment_id, enum_name, replica_label
from roundhouse.client.wait import OnProgress
from roundhouse.v1 import deployment_pb2


@contextlib.contextmanager
def waiting_display(title: str, name: str, *, is_quiet: bool) -> Iterator[OnProgress]:
    """Yields what takes each progress and shows it on the error stream: alive on a terminal, else a line per change."""
    out = console(sys.stderr)
    if is_quiet:
        yield lambda _: None
    elif out.is_terminal:
        board = _Board(title)
        with Live(board, console=out, refresh_per_second=8, transient=True):
            yield board.take
    else:
        yield _Lines(out, name).take


class _Stages:
    """Which stage each replica is in, and since when, by our own clock."""

    def __init__(self) -> None:
        self.start_s = time.monotonic()
        self._since: dict[str, tuple[tuple[int, int], float]] = {}

    def enter(self, replica: deployment_pb2.Replica) -> bool:
        """Notes the stage; returns whether it is a new one."""
        known, stage = self._since.get(replica.name), (replica.state, replica.progress.stage)
        if known is not None and known[0] == stage:
            return False
        self._since[replica.name] = (stage, time.monotonic())
        return True

    def age_s(self, replica: deployment_pb2.Replica) -> float:
        return time.monotonic() - self._since[replica.name][1]


class _Board:
    """A table that is drawn anew as time goes by."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stages = _Stages()
        self._replicas: tuple[deployment_pb2.Replica, ...] = ()

    def take(self, progress: Progress) -> None:
        for each in progress.replicas:
            self._stages.enter(each)
        self._replicas = progress.replicas

    def __rich__(self) -> Group:
        elapsed = format_age(time.monotonic() - self._stages.start_s)
        rows = [
            (
                replica_label(each.name),
                state_text(_state(each)),
                format_age(self._stages.age_s(each)),
                where(each),
                done(each),
                note(each),
            )
            for each in self._replicas
        ]
        grid = table(
            ("REPLICA", "STATE", "FOR", "WHERE", "DONE", "NOTE"), rows, right=("FOR", "DONE"), first_to_go=("FOR",)
        )
        return (
            Group(Text.assemble(self._title, (f"  {elapsed}", "dim")), grid) if self._replicas else Group(self._title)
        )


class _Lines:
    """One line for each stage that a replica enters."""

    def __init__(self, out: Console, name: str) -> None:
        self._out = out
        self._stages = _Stages()
        self._width = len(deployment_id(name)) + 4

    def take(self, progress: Progress) -> None:
        for each in progress.replicas:
            if self._stages.enter(each):
                elapsed = f"{time.monotonic() - self._stages.start_s:.1f} s"
                parts = (replica_label(each.name).ljust(self._width), _state(each).ljust(9), where(each), note(each))
                self._out.print(f"{elapsed:>8}  {'  '.join(part for part in parts if part).rstrip()}")


def _state(replica: deployment_pb2.Replica) -> str:
    return short_enum(enum_name(deployment_pb2.ReplicaState, replica.state))
