"""GPUs that are not there: what a script says, with the engines on them charged."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nodeagent.gpus.script import Script, parse
from nodeagent.gpus.simulated import SimulatedGpus
from nodeagent.model import Ecc, Failure, GpuProcess, Occupant, Reading, Throttle
from roundhouse.kit.errors import Usage
from tests.support.clock import FakeClock

GIB = 1024**3
PLAIN = Script(2, 24 * GIB)


@pytest.fixture
def other_pid() -> Iterator[int]:
    """The same of another one."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def engine_pid() -> Iterator[int]:
    """The pid of a process that leads a session, as engines do."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process.pid
        process.kill()


class Play:
    """GPUs of a script, and its time."""

    def __init__(self, *lines: dict[str, Any], gpus: int = 2, **first: Any) -> None:
        said = [{"gpus": gpus, "total_memory_bytes": "24GiB", **first}, *lines]
        self.clock = FakeClock()
        self.gpus = SimulatedGpus("a", parse("\n".join(map(json.dumps, said))), self.clock.monotonic)

    def after(self, duration_s: float) -> Sequence[Reading]:
        self.clock.advance(duration_s)
        return self.gpus.sample([])

    def failures(self) -> list[Failure | None]:
        return [each.failure_kind if each.failure else None for each in self.gpus.sample([])]


def test_names_tell_node_and_index() -> None:
    readings = SimulatedGpus("a", PLAIN).sample([])
    assert [(each.uuid, each.index, each.is_simulated) for each in readings] == [
        ("SIM-a-0", 0, True),
        ("SIM-a-1", 1, True),
    ]


def test_an_engine_is_charged_what_is_reserved_for_it_on_each_of_its_gpus(engine_pid: int, other_pid: int) -> None:
    gpus = SimulatedGpus("a", PLAIN)
    one = Occupant("r", ("SIM-a-0",), 4 * GIB, pid=other_pid, replica="chat/0")
    two = Occupant("s", ("SIM-a-0", "SIM-a-1"), 5 * GIB, pid=engine_pid, replica="chat/1")
    first, second = gpus.sample([one, two])
    assert (first.used_bytes, first.free_bytes, first.foreign_bytes) == (9 * GIB, 15 * GIB, 0)
    assert first.measured_bytes == {"r": 4 * GIB, "s": 5 * GIB}
    assert second.measured_bytes == {"s": 5 * GIB}
    assert second.processes == (GpuProcess(engine_pid, second.processes[0].name, "chat/1", 5 * GIB),)


def test_an_engine_without_a_process_uses_nothing_yet() -> None:
    first, _ = SimulatedGpus("a", PLAIN).sample([Occupant("r", ("SIM-a-0",), 4 * GIB)])
    assert (first.used_bytes, first.measured_bytes) == (0, {})


def test_more_than_there_is_cannot_be_used(engine_pid: int) -> None:
    first, _ = SimulatedGpus("a", PLAIN).sample([Occupant("r", ("SIM-a-0",), 30 * GIB, pid=engine_pid)])
    assert (first.used_bytes, first.free_bytes) == (24 * GIB, 0)


def test_utilization_is_what_the_engines_on_it_spend_in_steps_and_at_most_all(engine_pid: int, other_pid: int) -> None:
    here = Occupant("r", ("SIM-a-0",), GIB, pid=engine_pid, busy_fraction=0.25)
    both = Occupant("s", ("SIM-a-0", "SIM-a-1"), GIB, pid=other_pid, busy_fraction=0.875)
    first, second = SimulatedGpus("a", PLAIN).sample([here, both])
    assert (first.utilization_fraction, second.utilization_fraction) == (1.0, 0.875)
    assert first.memory_utilization_fraction is None


def test_values_are_said_from_their_time_on_and_only_of_the_gpus_that_are_named() -> None:
    play = Play(
        {"at_s": 5, "gpu": 1, "set": {"temperature_celsius": 81, "throttle_reasons": ["HARDWARE_THERMAL"]}},
        {"at_s": 9, "set": {"temperature_celsius": None, "power_watts": 300.5}},
        set={"temperature_celsius": 40},
    )
    assert [each.temperature_celsius for each in play.after(4.9)] == [40, 40]
    cool, hot = play.after(0.1)
    assert (cool.temperature_celsius, cool.throttles) == (40, ())
    assert (hot.temperature_celsius, hot.throttles) == (81, (Throttle.HARDWARE_THERMAL,))
    assert [(each.temperature_celsius, each.power_watts) for each in play.after(100)] == [(None, 300.5)] * 2


def test_everything_that_a_real_one_tells_can_be_said() -> None:
    said = {
        "product_name": "B9000",
        "driver_memory_bytes": "1GiB",
        "utilization_fraction": 0.5,
        "memory_utilization_fraction": 0.25,
        "temperature_celsius": 33,
        "power_watts": 71.5,
        "power_limit_watts": 700,
        "sm_clock_mhz": 1200,
        "max_sm_clock_mhz": 1980,
        "memory_clock_mhz": 3200,
        "throttle_reasons": ["POWER_CAP", "SYNC_BOOST"],
        "ecc": {"is_enabled": True, "corrected_count": 5, "uncorrected_count": 1},
    }
    [reading] = Play(gpus=1, set=said).after(0)
    assert (reading.product_name, reading.driver_bytes) == ("B9000", GIB)
    assert (reading.utilization_fraction, reading.memory_utilization_fraction) == (0.5, 0.25)
    assert (reading.temperature_celsius, reading.power_watts, reading.power_limit_watts) == (33, 71.5, 700)
    assert (reading.sm_clock_mhz, reading.max_sm_clock_mhz, reading.memory_clock_mhz) == (1200, 1980, 3200)
    assert reading.throttles == (Throttle.POWER_CAP, Throttle.SYNC_BOOST)
    assert reading.ecc == Ecc(is_enabled=True, corrected_count=5, uncorrected_count=1)


def test_processes_of_others_come_and_go() -> None:
    play = Play(
        {"at_s": 1, "gpu": 0, "processes": [{"pid": 77, "name": "python", "used_memory_bytes": "20GiB"}]},
        {"at_s": 2, "gpu": 0, "processes": []},
    )
    first, second = play.after(1)
    assert (first.foreign_bytes, second.foreign_bytes) == (20 * GIB, 0)
    assert first.processes == (GpuProcess(77, "python", "", 20 * GIB),)
    assert [each.foreign_bytes for each in play.after(1)] == [0, 0]


def test_a_process_of_a_script_is_nobodys_engine_even_if_an_engine_has_its_pid(engine_pid: int) -> None:
    play = Play({"at_s": 0, "processes": [{"pid": engine_pid, "name": "x", "used_memory_bytes": "1GiB"}]})
    first, _ = play.gpus.sample([Occupant("r", (), 5 * GIB, pid=engine_pid)])
    assert (first.foreign_bytes, first.measured_bytes) == (GIB, {})


FAULTS = [
    Failure.OFF_BUS,
    Failure.MISSING,
    Failure.DRIVER_ERROR,
    Failure.RESET_REQUIRED,
    Failure.MIG_ENABLED,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_gpu_begins_and_ends(fault: Failure) -> None:
    play = Play({"at_s": 1, "gpu": 1, "fault": fault.name}, {"at_s": 2, "gpu": 1, "fault": None})
    assert play.failures() == [None, None]
    play.clock.advance(1)
    assert play.failures() == [None, fault]
    play.clock.advance(1)
    assert play.failures() == [None, None]


def test_a_driver_that_is_gone_comes_back_with_all_gpus() -> None:
    play = Play({"at_s": 1, "fault": "DRIVER_GONE"}, {"at_s": 4, "fault": None})
    assert play.failures() == [None, None]
    play.clock.advance(1)
    assert play.failures() == [Failure.DRIVER_GONE] * 2
    assert play.failures() == [Failure.DRIVER_GONE] * 2
    play.clock.advance(3)
    assert play.failures() == [None, None]


def test_a_simulated_gpu_that_never_worked_is_a_simulated_gpu() -> None:
    [only] = Play({"at_s": 9, "fault": None}, gpus=1, fault="OFF_BUS").after(0)
    assert (only.is_simulated, only.failure_kind) == (True, Failure.OFF_BUS)


def test_a_driver_that_hangs_answers_when_the_script_lets_it() -> None:
    start_s = time.monotonic()
    script = parse(
        '{"gpus": 1, "total_memory_bytes": "1GiB", "fault": "DRIVER_HANGS"}\n{"at_s": 0.05, "fault": null}\n'
    )
    [reading] = SimulatedGpus("a", script).sample([])
    assert reading.failure == ""
    assert time.monotonic() - start_s >= 0.05


FIRST = '{"gpus": 2, "total_memory_bytes": "24GiB"}'
WRONG = {
    "nothing": ("", "begin with how many"),
    "no JSON": ("gpus: 2", "line 1 of the script of simulated GPUs is no JSON"),
    "no object": ("[]", "line 1 .* is no object"),
    "no count": ('{"total_memory_bytes": "1GiB"}', '"gpus" is no whole number from 1 to 64'),
    "too many": ('{"gpus": 65, "total_memory_bytes": "1GiB"}', '"gpus" is no whole number'),
    "a count that is true": ('{"gpus": true, "total_memory_bytes": "1GiB"}', '"gpus" is no whole number'),
    "no size": ('{"gpus": 1}', '"total_memory_bytes" is no number of bytes'),
    "too small": ('{"gpus": 1, "total_memory_bytes": 5}', '"total_memory_bytes" is no number of bytes'),
    "no size that can be read": ('{"gpus": 1, "total_memory_bytes": "much"}', "write a size"),
    "a key that is not known": (FIRST + '\n{"at_s": 1, "gpus": 3}', 'line 2 .* "gpus" is not known'),
    "no time": (FIRST + '\n{"gpu": 1}', '"at_s" is no number of seconds from 0'),
    "a time that has passed": (FIRST + '\n{"at_s": 5}\n\n{"at_s": 4}', 'line 4 .* "at_s" is no number .* from 5'),
    "a time that is not a number": (FIRST + '\n{"at_s": NaN}', '"at_s" is no number'),
    "a GPU that is not there": (FIRST + '\n{"at_s": 1, "gpu": 2}', "use indexes from 0 to 1"),
    "a field that is not known": (FIRST + '\n{"at_s": 1, "set": {"smell": 1}}', '"set.smell" is not known'),
    "a value that cannot be": (FIRST + '\n{"at_s": 1, "set": {"utilization_fraction": 2}}', "cannot be 2"),
    "a throttle that is not known": (FIRST + '\n{"at_s": 1, "set": {"throttle_reasons": ["x"]}}', "cannot be"),
    "a fault that is not known": (FIRST + '\n{"at_s": 1, "fault": "TIRED"}', '"fault" is not known: use OFF_BUS'),
    "a driver of one GPU": (FIRST + '\n{"at_s": 1, "gpu": 0, "fault": "DRIVER_GONE"}', "leave gpu out"),
    "a process without a pid": (FIRST + '\n{"at_s": 1, "processes": [{"name": "x"}]}', "without a pid"),
    "a process without memory": (FIRST + '\n{"at_s": 1, "processes": [{"pid": 7}]}', '"processes" is no number'),
    "a GPU in two groups": (
        '{"gpus": 2, "total_memory_bytes": "1GiB", "nvlink": [[0, 1], [1]]}',
        "has a GPU in two groups",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_a_script_is_one_readable_line(text: str, said: str) -> None:
    with pytest.raises(Usage, match=said) as caught:
        parse(text)
    assert "\n" not in caught.value.message


def test_blank_lines_and_remarks_are_skipped() -> None:
    assert parse(f"# two of them\n\n{FIRST}\n  # no more\n").gpu_count == 2


def test_the_script_in_the_documentation_can_be_played() -> None:
    documents = Path(__file__).parents[4] / "docs/gpu.md"
    _, _, section = documents.read_text().partition("### Simulated GPUs")
    script = parse(section.split("```")[1])
    assert (script.gpu_count, len(script.steps)) == (4, 7)
