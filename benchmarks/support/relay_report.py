"""`python -m benchmarks.support.relay_report FILE`: writes the last run in a file of raw results as tables in Markdown.

Of the rounds the medians count, and of the most tokens each round is told. Everything is of one run, in which the ways
took turns.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.records import Record, read

DIRECT, NOTHING = "direct", "–"
NAMES = {DIRECT: "direct", "gateway": "gateway", "envoy": "Envoy"}


def table(records: Sequence[Record]) -> str:
    """Returns what a run says."""
    ways = [name for name in NAMES if any(each.get("way") == name for each in records)]
    counts = sorted({int(each["streams"]) for each in records if each["kind"] == "stream"})
    rows = [["", *(NAMES[way] for way in ways)], ["---"] * (len(ways) + 1)]
    rows += [
        [f"first token, {percent}", *(_first(records, way, f"{percent}_s") for way in ways)]
        for percent in ("p50", "p99")
    ]
    for count in counts:
        offered = min(each["offered_per_s"] for each in _streams(records, count))
        label = f"processor time for 1,000 tokens, {_named(count)} of {offered / count:,.0f}/s"
        rows.append([label, *(_cpu(records, way, count, offered) for way in ways)])
    rows += [
        [f"the most tokens/s, {_named(count)}, round by round", *(_most(records, w, count) for w in ways)]
        for count in counts
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write(raw: Path) -> Path:
    """Writes the tables beside the raw results."""
    target = raw.with_suffix(".md")
    target.write_text(table(read(raw)), encoding="utf-8")
    return target


def _named(count: int) -> str:
    return "1 stream" if count == 1 else f"{count:,} streams"


def _first(records: Sequence[Record], way: str, figure: str) -> str:
    took_s = {
        each: {record["round"]: record[figure] for record in records if (record["kind"], record.get("way")) == each}
        for each in (("first token", way), ("first token", DIRECT))
    }
    own, direct = took_s["first token", way], took_s["first token", DIRECT]
    told = f"{statistics.median(own.values()) * 1e3:.2f} ms"
    added_s = statistics.median(value - direct[round_] for round_, value in own.items())
    return told if way == DIRECT else f"{told} ({added_s * 1e3:+.2f})"


def _cpu(records: Sequence[Record], way: str, count: int, offered: int) -> str:
    found = [
        each["relay_cpu_s"] / each["window_s"] / each["tokens_per_s"]
        for each in _streams(records, count, way)
        if each["offered_per_s"] == offered and "relay_cpu_s" in each
    ]
    return f"{statistics.median(found) * 1e6:.1f} ms" if found else NOTHING


def _most(records: Sequence[Record], way: str, count: int) -> str:
    """Tells of each round the highest rate that was kept up with, and how late 1 % of the tokens was then."""
    found = _streams(records, count, way)
    top = max(each["offered_per_s"] for each in _streams(records, count))
    told = []
    for round_ in sorted({each["round"] for each in found}):
        kept = [each for each in found if each["round"] == round_ and each["keeps_up"]]
        best = max(kept, key=lambda each: float(each["offered_per_s"]), default=None)
        if best is None:
            told.append("none")
        else:
            sign = "at least " if best["offered_per_s"] == top else ""
            told.append(f"{sign}{best['offered_per_s']:,} ({best['late_p99_s'] * 1e3:.0f} ms)")
    return " / ".join(told) or NOTHING


def _streams(records: Sequence[Record], count: int, way: str = "") -> Sequence[Record]:
    return [
        each for each in records if each["kind"] == "stream" and each["streams"] == count and way in ("", each["way"])
    ]


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
