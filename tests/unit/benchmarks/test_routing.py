"""The simulation of routing: its engines compute what they are told, and what is drawn can be read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.support.routing_engine import Running, SimulatedEngine
from benchmarks.support.routing_run import Size, Way, replay
from benchmarks.support.routing_traces import TRACES, Arrival, read, write


def test_a_trace_can_be_written_and_read_again(tmp_path: Path) -> None:
    for name, drawn in TRACES.items():
        trace = drawn(3.0, 1)
        write(trace, tmp_path / name)
        assert read(tmp_path / name) == trace
        assert drawn(3.0, 1) == trace


@pytest.mark.parametrize("line", ["{", "[]", '{"at_s": 1}', '{"when": 1}'])
def test_a_line_that_is_no_arrival_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "trace"
    file.write_text('{"at_s": 1, "prompt_token_count": 2, "output_token_count": 3}\n' + line)
    with pytest.raises(ValueError, match="line 2"):
        read(file)


def test_an_engine_gives_each_request_its_tokens_and_holds_nothing_after() -> None:
    engine, told, now_s = SimulatedEngine(cache_tokens=3000), dict.fromkeys(range(40), 0), 0.0
    for number in range(40):
        arrival = Arrival(0.0, 700, 1 + number % 7, tuple(range(10)))

        def on_tokens(count: int, _: float, number: int = number) -> None:
            told[number] += count

        engine.add(Running(arrival, on_tokens))
    while not engine.is_idle:
        now_s += engine.begin()
        assert engine.held <= 3000
        engine.end(now_s)
    assert told == {number: 1 + number % 7 for number in range(40)}
    assert (engine.held, engine.sequence_count) == (0, 0)
    assert 0 < engine.found_tokens < engine.prompt_tokens


@pytest.mark.parametrize("name", TRACES)
def test_every_request_of_a_trace_ends_and_the_same_seed_gives_the_same(name: str) -> None:
    trace = TRACES[name](2.0, 3)
    way, size = Way("power_of_two", "power_of_two"), Size([1.0, 0.5, 1.0], 2)
    first = replay(trace, way, size, 1)
    assert len(first.ttft_s) == len(first.token_s) == len(trace)
    assert first == replay(trace, way, size, 1)
    assert first.figures()["balance"] >= 1
