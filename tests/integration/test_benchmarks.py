"""Benchmarks run, from their first process to their results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.support.paths import ROOT
from benchmarks.support.records import read

PATIENCE_S = 400.0
MOST_GROWTH_BYTES = 16 << 20  # within a minute: a slope takes half an hour to be told from noise


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_quick_run_measures_us_alone_and_says_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.engine",
        "--quick",
        "--peers",
        "roundhouse",
        "--results",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw], [table] = tmp_path.glob("*.jsonl"), tmp_path.glob("*.md")
    records = read(raw)
    assert [record for record in records if record["kind"] == "skipped"] == []
    loads = {record["load"] for record in records if record["kind"] == "load"}
    assert loads == {"mixed", "decode-1", "decode-8", "decode-32", "open-80"}
    assert all(record["figures"]["tokens_per_s"] > 0 for record in records if record["kind"] == "load")
    assert "| decode-32 |" in table.read_text()


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_quick_fleet_is_held_seen_and_given_its_replicas(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fleet", "--quick", "--agents", "5", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw] = tmp_path.glob("*.jsonl")
    records = read(raw)
    steady = {record["load"]: record for record in records if record["kind"] == "steady"}
    assert steady.keys() == {"empty", "watched", "replicas"}
    assert all(record["plane_cpu_fraction"] > 0 and record["reports_per_s"] > 0 for record in steady.values())
    assert steady["watched"]["watch"]["node_count"] == 5
    placings = [(record["load"], record["replica_count"]) for record in records if record["kind"] == "placing"]
    assert placings == [("cold", 5), ("warm", 4), ("warm", 5), ("cold", 5)]


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_quick_look_at_admission_tells_shares_and_what_bursts_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.admission", "--quick", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw] = tmp_path.glob("*.jsonl")
    records = read(raw)
    [shares] = [record for record in records if record["kind"] == "shares"]
    assert shares["difference_fraction"] < 0.25  # of some seconds
    assert [record["load"] for record in records if record["kind"] == "burst"] == ["overload", "light"]


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_quick_relay_is_measured_beside_none_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.relay", "--quick", "--ways", "gateway", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw], [table] = tmp_path.glob("*.jsonl"), tmp_path.glob("*.md")
    records = read(raw)
    streams = [record for record in records if record["kind"] == "stream"]
    assert {(record["way"], record["streams"]) for record in streams} >= {
        (way, count) for way in ("direct", "gateway") for count in (1, 20, 50)
    }
    assert [record["error"] for record in streams if record["error"]] == []
    assert all(record["whole_count"] == record["streams"] for record in streams)
    assert "| the most tokens/s, 20 streams, round by round |" in table.read_text()


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_profile_of_a_gateway_names_its_functions(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.relay", "--quick", "--profile", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [profile] = tmp_path.glob("*-profile.txt")
    assert "outlet.py" in profile.read_text()


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_two_minutes_of_soak_lose_nothing_and_keep_the_memory_of_a_gateway(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "2", "--seed", "1", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw] = tmp_path.glob("*.jsonl")
    records = {record["kind"]: record for record in read(raw)}
    assert (records["end"]["error_count"], records["end"]["left_at_source"]) == (0, 0)
    assert set(records["end"]["requests"]) == {"read", "cancel", "leave", "read slowly"}
    memory = records["memory"]
    assert memory["last_rss_bytes"] - memory["warm_rss_bytes"] < MOST_GROWTH_BYTES, memory


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_cancels_at_random_leave_nothing_behind_and_every_receipt_adds_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.receipts", "--model", "demo", "--cancels", "1000"]
    subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, check=True, timeout=PATIENCE_S)
    [raw] = tmp_path.glob("*.jsonl")
    [found] = [record for record in read(raw) if record["kind"] == "receipts"]
    assert (found["left_behind"], found["error_count"]) == ([], 0)
    assert set(found["ways"]) == {"cancel", "cancel twice", "leave", "cancel before", "cancel after"}
    assert found["outcomes"].keys() == {"CANCELLED", "ALREADY_FINISHED", "NOT_ARRIVED"}
