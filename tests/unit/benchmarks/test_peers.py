"""Peers run in turn, in processes of their own, and one that fails takes nobody along."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.support.loads import LOADS, Closed, Load
from benchmarks.support.match import Match, Rules
from benchmarks.support.models import Model, made
from benchmarks.support.paths import ROOT
from benchmarks.support.process import PeerFailed, PeerProcess
from benchmarks.support.records import Record, Records
from benchmarks.support.roster import Entrant
from benchmarks.support.wire import Request, Setup
from engines.demo_model import MODEL_DIR
from tests.support.stand_in_peer import BREAKS, DIES

MODULE = "tests.support.stand_in_peer"
PYTHON = Path(sys.executable)
CORES = sorted(os.sched_getaffinity(0))
MODEL = Model("demo", "bfloat16", first_token_s=1.0, token_s=0.5, mixed_count=4, open_s=1.0)


def entrant(name: str, token_s: float, **fields: Any) -> Entrant:
    return Entrant(name, "", MODULE, options={"token_s": str(token_s)}, **fields)


def setup(**options: str) -> Setup:
    return Setup("nowhere", "float32", 1, CORES, 1, 1, 1, {"token_s": "0.001", **options})


def state(process: PeerProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_peer_answers_in_its_turn_and_stands_still_otherwise(tmp_path: Path) -> None:
    with PeerProcess(PYTHON, MODULE, ROOT, tmp_path / "log", {}) as peer:
        hello = peer.load(setup())
        assert (hello.threads, hello.notes) == (1, "a stand-in")
        assert "python" in hello.versions
        assert state(peer) == "T"
        outcome = peer.run([Request((1,), 2), Request((1, 2), 1, at_s=0.5)])
        assert outcome.token_times_s == [[0.001, 0.002], [0.501]]
        assert outcome.error == ""
        assert state(peer) == "T"
    assert not Path(f"/proc/{peer.pid}").exists()


def test_an_error_of_a_run_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with PeerProcess(PYTHON, MODULE, ROOT, tmp_path / "log", {}) as peer:
        peer.load(setup())
        assert peer.run([Request((1,) * BREAKS, 1)]).error == "ValueError: no such prompts"
        assert peer.run([Request((1,), 1)]).error == ""


def test_a_peer_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with PeerProcess(PYTHON, MODULE, ROOT, tmp_path / "log", {}) as peer:
        peer.load(setup())
        with pytest.raises(PeerFailed, match="what libraries print is no answer"):
            peer.run([Request((1,) * DIES, 1)])


class Played:
    """The records of a match between stand-ins."""

    def __init__(
        self, directory: Path, *entrants: Entrant, loads: list[Load], rounds: int = 2, left_s: float = 60
    ) -> None:
        records = Records(directory / "raw.jsonl")
        rules = Rules(ROOT, records, directory, CORES, rounds, 1e9, time.monotonic() + left_s, 1.0, 45.0, "seed")
        Match(MODEL, made(MODEL, directory, MODEL_DIR), rules).play(entrants, loads)
        self.all = records.all

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.all if record["kind"] == kind]

    def runs(self) -> list[tuple[str, int, str]]:
        return [(record["load"], record["round"], record["peer"]) for record in self.of("load")]


def test_main_entrants_take_turns_and_each_of_the_others_takes_turns_with_the_first_of_them(tmp_path: Path) -> None:
    played = Played(tmp_path, entrant("a", 0.001, is_main=True), entrant("b", 0.002), loads=[LOADS["decode-8"]])
    # The main one twice for itself, then each before the other one.
    assert played.runs() == [
        ("decode-8", number, peer) for number, peers in enumerate(("a", "a", "ab", "ab"), 1) for peer in peers
    ]
    first = played.of("load")[0]
    assert first["figures"]["tokens_per_s"] == pytest.approx(8000)
    assert first["roofline_fraction"] > 0
    assert len(first["requests"]) == 8


def test_raw_results_do_not_say_where_a_machine_keeps_the_project(tmp_path: Path) -> None:
    peer = replace(entrant("a", 0.001), variables=lambda _: {"PLACE": f"{ROOT}/benchmarks"})
    played = Played(tmp_path, peer, loads=[Closed("one", 1, 8, 2)], rounds=1)
    assert played.of("peer")[0]["variables"]["PLACE"] == "benchmarks"


def test_open_loads_come_at_a_share_of_what_the_fastest_main_entrant_can_and_for_the_others_for_half_as_long(
    tmp_path: Path,
) -> None:
    a, b = entrant("a", 0.001, is_main=True), entrant("b", 0.0001)
    played = Played(tmp_path, a, b, loads=[LOADS["open-50"]], rounds=1)
    assert played.runs() == [("mixed", 0, "a"), ("open-50", 1, "a"), ("open-50", 2, "a"), ("open-50", 2, "b")]
    _, whole, *half = [record["requests"] for record in played.of("load")]
    assert max(at_s for each in half for at_s, *_ in each) < 0.5 * MODEL.open_s
    assert max(at_s for at_s, *_ in whole) < MODEL.open_s


def test_what_would_take_too_long_or_begin_too_late_is_left_out_and_said(tmp_path: Path) -> None:
    slow = entrant("slow", 10.0)
    played = Played(tmp_path, slow, loads=[Closed("one", 1, 8, 2), Closed("many", 1, 8, 64)], rounds=1)
    assert played.runs() == [("one", 1, "slow")]
    assert [record["why"] for record in played.of("skipped")] == ["it would take about 640 s"]
    late = Played(tmp_path / "late", slow, loads=[Closed("one", 1, 8, 2)], left_s=-1)
    assert late.runs() == []
    assert [record["why"] for record in late.of("skipped")] == ["the time for the whole run was over"] * 1


def test_a_peer_that_fails_is_said_to_and_the_others_go_on(tmp_path: Path) -> None:
    played = Played(tmp_path, entrant("a", 0.001), entrant("b", 0.001), loads=[Closed("bad", 1, BREAKS, 2)], rounds=1)
    assert [(record["peer"], record["why"]) for record in played.of("skipped")] == [
        ("a", "ValueError: no such prompts"),
        ("b", "ValueError: no such prompts"),
    ]
    broken = Entrant("broken", "", MODULE)  # lacks an option
    played = Played(tmp_path / "two", broken, entrant("b", 0.001), loads=[LOADS["decode-1"]], rounds=1)
    assert played.runs() == [("decode-1", 1, "b")]
    [record] = played.of("skipped")
    assert "KeyError" in record["why"]
