"""`python -m benchmarks.support.report FILE`: writes the last run in a file of raw results as tables in Markdown.

Of an entrant's rounds the one in the middle counts. How many times as fast one is as another is told by the rounds that
both were in; of a family's modes the one counts that does best beside ours, load by load.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.support.records import Record, read
from benchmarks.support.roster import ENTRANTS, FAMILIES, OURS, VLLM

QUIET = 0.05  # of the cores' time; where others take more, a comparison says little

_MODES: Mapping[str, str] = {
    name: name.removeprefix(f"{entrant.family}-") for name, entrant in ENTRANTS.items() if name != entrant.family
}


class Table:
    """The loads of a run, by model, load and entrant."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._runs: dict[tuple[str, str, str], list[Record]] = {}
        for record in records:
            if record["kind"] == "load":
                self._runs.setdefault((record["model"], record["load"], record["peer"]), []).append(record)
        self.has_joules = any(run["joules"] is not None for runs in self._runs.values() for run in runs)
        self.models = _distinct(model for model, _, _ in self._runs)

    def loads(self, model: str) -> list[str]:
        """Returns the loads of a model that were compared, in the order in which they ran."""
        return _distinct(load for each, load, _ in self._runs if each == model and load != "mixed")

    def best(self, model: str, load: str, family: str) -> Record | None:
        """Returns the run that counts for a family; None if there is none."""
        names = [name for name, entrant in ENTRANTS.items() if entrant.family == family]
        runs = [_middle(found) for name in names if (found := self._runs.get((model, load, name)))]
        return max(runs, key=self._strength, default=None)

    def times(self, run: Record, figure: str) -> float | None:
        """Returns how many times as much Roundhouse gives, in the middle of the rounds that both were in."""
        model, load, peer = run["model"], run["load"], run["peer"]
        ours = {record["round"]: record for record in self._runs.get((model, load, OURS), ())}
        pairs = [(ours[each["round"]], each) for each in self._runs[model, load, peer] if each["round"] in ours]
        if not pairs and (other := self.best(model, load, OURS)) is not None:
            pairs = [(other, run)]
        return statistics.median(_figure(own, figure) / _figure(each, figure) for own, each in pairs) if pairs else None

    def of(self, model: str, load: str, entrant: str) -> Record | None:
        """Returns the run that counts for an entrant."""
        found = self._runs.get((model, load, entrant))
        return _middle(found) if found else None

    def _strength(self, run: Record) -> float:
        # A machine is not equally fast all the time, so modes that took turns at other times are no match by rate.
        times = self.times(run, "tokens_per_s")
        return _rate(run) if times is None else 1 / times


def written(records: Sequence[Record]) -> str:
    """Returns the tables of a run."""
    table = Table(records)
    sections = ["\n".join(_head(records))]
    for model in table.models:
        sections += [f"### {model}", "\n".join(_rates(table, model)), "\n".join(_times(table, model))]
    sections += ["\n".join(_skipped(records))]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(records: Sequence[Record]) -> Iterator[str]:
    for run in (record for record in records if record["kind"] == "run"):
        yield (
            f"Measured {run['time']} at {run['commit']} on {run['cpu']}, {len(run['cores'])} of {run['core_count']} "
            f"cores, kernel {run['kernel']}, load average {run['load_average'][0]:.1f} before; "
            f"a copy moves {run['bandwidth'] / 1e9:.1f} GB/s. All engines: {run['threads']} threads, "
            f"{run['kv_cache_bytes'] >> 20} MiB of keys and values, up to {run['batch_size']} sequences, greedy."
        )
    taken = statistics.median([record["others_fraction"] for record in records if record["kind"] == "load"] or [0.0])
    yield ""
    yield f"While engines ran, others took {taken:.0%} of the cores' time, in the middle of all runs."
    if taken > QUIET:
        yield "**That is too much: threads that wait for each other lose more by it than they are delayed.**"
    versions: dict[str, str] = {}
    for peer in (record for record in records if record["kind"] == "peer"):
        versions[peer["peer"]] = ", ".join(f"{name} {number}" for name, number in peer["hello"]["versions"].items())
    yield ""
    yield from (f"- {name}: {version}" for name, version in versions.items())


def _rates(table: Table, model: str) -> Iterator[str]:
    """Yields the lines of the table of throughput."""
    loads = table.loads(model)
    families = [family for family in FAMILIES if any(table.best(model, load, family) for load in loads)]
    others = [family for family in families if family != OURS]
    yield (
        "Tokens per second (of CPU time), in the middle of all rounds; behind them, how many times as much Roundhouse "
        "gives in the same rounds. Only that compares: the machine was not equally fast all the time."
    )
    yield ""
    yield _row(["load", *(FAMILIES[family] for family in families)])
    yield _row(["---"] * (1 + len(families)))
    for load in loads:
        ours = table.best(model, load, OURS)
        cells = [_amount(ours)] if OURS in families else []
        yield _row([load, *cells, *(_against(table, table.best(model, load, family)) for family in others)])
    for load in loads:
        if (wired := table.of(model, load, f"{OURS}-grpc")) is not None:
            yield _row([f"{load} over gRPC", _amount(wired), *[""] * len(others)])


def _times(table: Table, model: str) -> Iterator[str]:
    """Yields the lines of the table of latency."""
    yield (
        "Milliseconds, p50 / p99, over all rounds: to the first token, for each other one; requests a second within "
        "the goals."
    )
    yield ""
    families = [
        family for family in (OURS, VLLM) if any(table.best(model, load, family) for load in table.loads(model))
    ]
    kinds = ["first", "token", "good/s", "of roofline", *(["J/token"] if table.has_joules else [])]
    yield _row(["load", *(f"{FAMILIES[family]}: {kind}" for kind in kinds for family in families)])
    yield _row(["---"] * (1 + len(kinds) * len(families)))
    for load in table.loads(model):
        runs = [table.best(model, load, family) for family in families]
        cells = [*(_spread(run, "first_token") for run in runs), *(_spread(run, "token") for run in runs)]
        cells += [*("" if run is None else f"{_figure(run, 'good_per_s'):.3g}" for run in runs)]
        cells += [_share(run) for run in runs]
        yield _row([load, *cells, *(_joules(run) for run in runs if table.has_joules)])


def _skipped(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if record["kind"] == "skipped":
            yield f"- not measured: {record['model']} {record['load']} {record['peer']}: {record['why']}"


def _against(table: Table, run: Record | None) -> str:
    if run is None:
        return "–"
    mode = f" {_MODES[run['peer']]}" if run["peer"] in _MODES else ""
    times, of_cpu = table.times(run, "tokens_per_s"), table.times(run, "tokens_per_cpu_s")
    return _amount(run) + mode + ("" if times is None or of_cpu is None else f", **{times:.2f}×** ({of_cpu:.2f}×)")


def _amount(run: Record | None) -> str:
    return "–" if run is None else f"{_rate(run):,.0f} ({_figure(run, 'tokens_per_cpu_s'):,.0f})"


def _spread(run: Record | None, name: str) -> str:
    if run is None:
        return "–"
    return " / ".join(f"{_figure(run, f'{name}_{part}_s') * 1e3:.3g}" for part in ("p50", "p99"))


def _share(run: Record | None) -> str:
    share = None if run is None else run["roofline_fraction"]
    return "–" if share is None else f"{share:.0%}"


def _joules(run: Record | None) -> str:
    spent = None if run is None else run["joules"]
    return "–" if run is None or spent is None else f"{spent / sum(each[3] for each in run['requests']):.3g}"


def _middle(runs: Sequence[Record]) -> Record:
    return sorted(runs, key=_rate)[(len(runs) - 1) // 2] if len(runs) != 2 else _mean(runs)


def _mean(runs: Sequence[Record]) -> Record:
    """Returns what lies between two runs."""
    names = runs[0]["figures"]
    both = {name: statistics.fmean(_figure(run, name) for run in runs) for name in names}
    shares = [run["roofline_fraction"] for run in runs if run["roofline_fraction"] is not None]
    return {**runs[0], "figures": both, "roofline_fraction": statistics.fmean(shares) if shares else None}


def _rate(run: Record) -> float:
    return _figure(run, "tokens_per_s")


def _figure(run: Record, name: str) -> float:
    value: Any = run["figures"][name]
    return float("nan") if value is None else float(value)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    print(written(read(Path(sys.argv[1]))))
