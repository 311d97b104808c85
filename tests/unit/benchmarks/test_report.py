"""The table says who was how fast, and who was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.records import Records, read
from benchmarks.support.report import written
from benchmarks.support.roster import ENTRANTS, FAMILIES, chosen

FIGURES = {
    "tokens_per_cpu_s": 10.0,
    "first_token_p50_s": 0.010,
    "first_token_p99_s": 0.020,
    "token_p50_s": 0.001,
    "token_p99_s": 0.002,
    "gap_p99_s": 0.003,
    "good_per_s": 4.0,
    "good_fraction": 1.0,
}


def load(peer: str, rate: float, number: int = 0, name: str = "decode-8") -> dict[str, Any]:
    figures = {**FIGURES, "tokens_per_s": rate}
    return {
        "model": "demo",
        "peer": peer,
        "load": name,
        "round": number,
        "figures": figures,
        "roofline_fraction": 0.5,
        "joules": None,
        "others_fraction": 0.01,
    }


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path / "results" / "run.jsonl")
    head = {
        "time": "now",
        "commit": "c0ffee",
        "cpu": "a CPU",
        "cores": [0],
        "core_count": 2,
        "kernel": "6",
        "threads": 1,
    }
    records.add("run", **head, load_average=[0.5], bandwidth=1e10, kv_cache_bytes=1 << 30, batch_size=64)
    return records


def test_the_best_of_a_familys_modes_is_what_ours_is_compared_with(records: Records) -> None:
    for peer, rate in (("roundhouse", 300.0), ("vllm-compiled", 100.0), ("vllm-eager", 150.0)):
        records.add("load", **load(peer, rate))
    assert "| decode-8 | 300 (10) | 150 (10) eager, **2.00×** (1.00×) |" in written(records.all)


def test_of_modes_that_took_turns_at_other_times_the_one_that_does_best_beside_ours_counts(records: Records) -> None:
    turns = (("vllm-compiled", 380.0, 390.0), ("vllm-eager", 320.0, 260.0))  # the machine was slower the second time
    for number, (peer, rate, ours) in enumerate(turns):
        records.add("load", **load("roundhouse", ours, number))
        records.add("load", **load(peer, rate, number))
    assert "| 320 (10) eager, **0.81×** (1.00×) |" in written(records.all)


def test_of_two_rounds_the_mean_counts_and_of_three_the_one_in_the_middle(records: Records) -> None:
    for number, rate in enumerate((100.0, 300.0)):
        records.add("load", **load("roundhouse", rate, number))
    assert "| decode-8 | 200 (10) |" in written(records.all)
    records.add("load", **load("roundhouse", 900.0, 2))
    assert "| decode-8 | 300 (10) |" in written(records.all)


def test_who_is_how_many_times_as_fast_is_told_by_the_rounds_that_both_were_in(records: Records) -> None:
    for number, rate in enumerate((100.0, 300.0, 600.0)):
        records.add("load", **load("roundhouse", rate, number))
    records.add("load", **load("xinference", 100.0, 2))
    assert "| decode-8 | 300 (10) | 100 (10), **6.00×** (1.00×) |" in written(records.all)


def test_what_a_token_costs_is_told_where_it_can_be_read(records: Records) -> None:
    records.add("load", **load("roundhouse", 100.0))
    assert "J/token" not in written(records.all)
    records.add("load", **{**load("vllm-eager", 100.0), "joules": 30.0, "requests": [[0.0, 0.1, 1.0, 20]] * 3})
    assert "| 0.5 |" in written(records.all)


def test_a_machine_that_was_not_quiet_is_told_of(records: Records) -> None:
    records.add("load", **load("roundhouse", 100.0))
    assert "others took 1% of the cores' time" in written(records.all)
    assert "too much" not in written(records.all)
    records.add("load", **{**load("roundhouse", 100.0, 1), "others_fraction": 0.4})
    assert "too much" in written(records.all)


def test_what_was_not_measured_is_said(records: Records) -> None:
    records.add("load", **load("roundhouse", 1.0))
    records.add("skipped", model="demo", load="decode-64", peer="xinference", why="it would take 120 s or more")
    assert "- not measured: demo decode-64 xinference: it would take 120 s or more" in written(records.all)


def test_records_are_read_as_they_were_written_but_for_digits_that_mean_nothing(records: Records) -> None:
    records.add("load", **load("roundhouse", 1.23456789), extra=float("nan"))
    records.add("run", again=True)
    records.add("load", **load("roundhouse", 1.23456789), extra=float("nan"))
    found = read(records.path)
    assert [record["kind"] for record in found] == ["run", "load"]
    assert found[1]["figures"]["tokens_per_s"] == 1.2346
    assert found[1]["extra"] is None


def test_entrants_are_chosen_by_name_or_by_family() -> None:
    assert [entrant.name for entrant in chosen("roundhouse,vllm-eager")] == ["roundhouse", "vllm-eager"]
    assert {entrant.family for entrant in chosen("vllm")} == {"vllm"}
    assert chosen("") == list(ENTRANTS.values())
    assert {entrant.family for entrant in ENTRANTS.values()} == {*FAMILIES, ""}
    with pytest.raises(KeyError):
        chosen("nobody")
