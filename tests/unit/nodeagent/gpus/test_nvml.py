"""What is made of the answers of NVML, and of its errors."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pynvml
import pytest

from nodeagent.gpus.nvml import REOPEN_AFTER
from nodeagent.gpus.processes import MOST_PROCESSES
from nodeagent.model import Ecc, Failure, GpuProcess, Occupant, Reading, Throttle
from tests.support.fake_nvml import GIB, FakeGpu, FakeNvml, gpus_of

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def read(*gpus: FakeGpu, occupants: Sequence[Occupant] = ()) -> Sequence[Reading]:
    return gpus_of(FakeNvml(*gpus)).sample(occupants)


def states(readings: Sequence[Reading]) -> list[tuple[str, int, Failure | None]]:
    return [(each.uuid, each.index, each.failure_kind if each.failure else None) for each in readings]


@pytest.fixture
def engine_pid() -> Iterator[int]:
    """The pid of a process that leads a session, as engines do."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def engine_with_child() -> Iterator[tuple[int, int]]:
    """The pids of a process that leads a session, and of a child of it."""
    # `read` waits until the pipe is closed, at which the shell ends its child and itself.
    script = "sleep 1000 & echo $!; read -r line; kill $!"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as shell:
        assert shell.stdout is not None
        yield shell.pid, int(shell.stdout.readline())
        shell.communicate()


ABSENT = [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]


@pytest.mark.parametrize("code", ABSENT)
def test_a_machine_without_a_driver_has_no_gpus_until_there_is_one(code: int) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), faults={"nvmlInit": code})
    gpus = gpus_of(nvml, has_devices=False)
    assert gpus.sample([]) == ()
    nvml.faults.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, None)]


@pytest.mark.parametrize("code", ABSENT)
def test_a_machine_that_starts_while_its_driver_is_away_is_no_cpu_node(code: int) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), faults={"nvmlInit": code})
    gpus = gpus_of(nvml)
    assert states(gpus.sample([])) == [("GPU-unknown-0", 0, Failure.DRIVER_GONE)]
    nvml.faults.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, None)]


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_that_cannot_be_used_yet_has_a_failed_gpu_and_is_tried_again(function: str) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"), faults={function: pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
    gpus = gpus_of(nvml)
    [failed] = gpus.sample([])
    assert (failed.uuid, failed.failure) == ("GPU-unknown-0", "RM has detected an NVML/RM version mismatch.")
    assert (failed.is_simulated, failed.total_bytes, failed.free_bytes) == (False, 0, 0)
    nvml.faults.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, None), ("GPU-b", 1, None)]


def test_the_version_of_the_driver_is_known_once_it_is_open() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), faults={"nvmlInit": pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
    gpus = gpus_of(nvml)
    gpus.sample([])
    assert gpus.driver_version == ""
    nvml.faults.clear()
    gpus.sample([])
    assert gpus.driver_version == "595.45.04"


def test_what_the_driver_keeps_is_used_and_nobody_elses_but_foreign() -> None:
    [reading] = read(FakeGpu("GPU-a", total=80 * GIB, driver_bytes=GIB))
    assert (reading.used_bytes, reading.free_bytes, reading.foreign_bytes) == (GIB, 79 * GIB, GIB)
    assert reading.driver_bytes == GIB


def test_a_driver_that_does_not_say_what_it_keeps_is_read_all_the_same() -> None:
    gpu = FakeGpu("GPU-a", faults={"nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
    [reading] = read(gpu)
    assert (reading.failure, reading.driver_bytes, reading.foreign_bytes) == ("", 0, gpu.driver_bytes)


def test_memory_of_an_engine_and_of_its_children_is_the_engines(engine_with_child: tuple[int, int]) -> None:
    engine, child = engine_with_child
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine: 2 * GIB, child: GIB, os.getpid(): 5 * GIB})
    [reading] = read(gpu, occupants=[Occupant("r", ("GPU-a",), 4 * GIB, pid=engine, replica="chat/0")])
    assert reading.measured_bytes == {"r": 3 * GIB}
    assert reading.foreign_bytes == 5 * GIB


def test_processes_are_told_by_replica_or_by_name_the_largest_first(engine_with_child: tuple[int, int]) -> None:
    engine, child = engine_with_child
    gone = 5_000_000  # above the highest pid that there can be
    gpu = FakeGpu("GPU-a", processes={engine: 2 * GIB, child: None, os.getpid(): 5 * GIB, gone: GIB})
    [reading] = read(gpu, occupants=[Occupant("r", ("GPU-a",), 4 * GIB, pid=engine, replica="chat/0")])
    mine = Path("/proc/self/comm").read_text().strip()
    assert reading.processes == (
        GpuProcess(os.getpid(), mine, "", 5 * GIB),
        GpuProcess(engine, "sh", "chat/0", 2 * GIB),
        GpuProcess(gone, "", "", GIB),
        GpuProcess(child, reading.processes[3].name, "chat/0", None),  # it may not be `sleep` yet
    )


def test_processes_that_draw_or_compute_for_others_are_seen_and_none_counts_twice() -> None:
    both: dict[int, int | None] = {5_000_001: 2 * GIB}
    gpu = FakeGpu("GPU-a", processes=both, drawing={**both, 5_000_002: GIB}, serving={5_000_003: 3 * GIB})
    [reading] = read(gpu)
    assert [(each.pid, each.used_bytes) for each in reading.processes] == [
        (5_000_003, 3 * GIB),
        (5_000_001, 2 * GIB),
        (5_000_002, GIB),
    ]


def test_of_many_processes_the_largest_are_shown_and_the_others_counted() -> None:
    [reading] = read(FakeGpu("GPU-a", processes={5_000_000 + number: number for number in range(MOST_PROCESSES + 3)}))
    assert (len(reading.processes), reading.omitted_process_count) == (MOST_PROCESSES, 3)
    assert min(each.used_bytes or 0 for each in reading.processes) == 3


def test_memory_of_an_engine_that_ended_is_its_own_until_it_is_given_back(engine_pid: int) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine_pid: GIB})
    gpus = gpus_of(FakeNvml(gpu))
    gpus.sample([Occupant("r", ("GPU-a",), GIB, pid=engine_pid)])
    [still] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert still.measured_bytes == {"r": GIB}
    gpu.processes.clear()
    [free] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert free.measured_bytes == {}
    gpu.processes[engine_pid] = GIB
    [foreign] = gpus.sample([Occupant("r", ("GPU-a",), GIB)])
    assert foreign.foreign_bytes == GIB


@pytest.mark.parametrize("processes", [{5_000_000: 6 * GIB}, {}], ids=["foreign pids", "no pids at all"])
def test_where_processes_cannot_be_told_apart_a_loaded_engine_uses_what_it_reserved(
    processes: dict[int, int | None],
) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0 if processes else 6 * GIB, processes=processes)
    [reading] = read(gpu, occupants=[Occupant("r", ("GPU-a",), 5 * GIB, pid=7, is_loaded=True)])
    assert reading.foreign_bytes == GIB


def test_memory_that_is_not_said_is_not_guessed(engine_pid: int) -> None:
    gpu = FakeGpu("GPU-a", driver_bytes=0, processes={engine_pid: None})
    [reading] = read(gpu, occupants=[Occupant("r", ("GPU-a",), GIB, pid=engine_pid)])
    assert reading.measured_bytes == {}


CODES = {
    "off the bus": (LOST, Failure.OFF_BUS, "GPU is lost"),
    "to be reset": (pynvml.NVML_ERROR_RESET_REQUIRED, Failure.RESET_REQUIRED, "GPU requires restart"),
    "no answer in time": (pynvml.NVML_ERROR_TIMEOUT, Failure.DRIVER_HANGS, "Timeout"),
    "unloaded": (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, Failure.DRIVER_GONE, "Driver Not Loaded"),
    "unloaded meanwhile": (pynvml.NVML_ERROR_UNINITIALIZED, Failure.DRIVER_GONE, "Uninitialized"),
    "exchanged": (
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        Failure.DRIVER_GONE,
        "RM has detected an NVML/RM version mismatch.",
    ),
    "anything": (pynvml.NVML_ERROR_UNKNOWN, Failure.DRIVER_ERROR, "Unknown Error"),
    "no power": (pynvml.NVML_ERROR_INSUFFICIENT_POWER, Failure.DRIVER_ERROR, "Insufficient External Power"),
}
FUNCTIONS = ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("code", "kind", "words"), CODES.values(), ids=CODES)
def test_a_gpu_that_cannot_be_read_is_failed_for_a_reason_keeps_its_name_and_comes_back(
    function: str, code: int, kind: Failure, words: str
) -> None:
    gpu, other = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    gpus = gpus_of(FakeNvml(gpu, other))
    gpus.sample([])
    gpu.faults[function] = code
    lost, fine = gpus.sample([])
    assert (lost.uuid, lost.failure, lost.failure_kind, lost.total_bytes) == ("GPU-a", words, kind, 80 * GIB)
    assert fine.failure == ""
    gpu.faults.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, None), ("GPU-b", 1, None)]


@pytest.mark.parametrize(
    ("function", "uuid"), [("nvmlDeviceGetHandleByIndex", "GPU-unknown-0"), ("nvmlDeviceGetMemoryInfo", "GPU-a")]
)
def test_a_gpu_that_was_never_read_is_failed_all_the_same(function: str, uuid: str) -> None:
    assert states(read(FakeGpu("GPU-a", faults={function: LOST}))) == [(uuid, 0, Failure.OFF_BUS)]


OPTIONAL = [
    "UtilizationRates",
    "PowerUsage",
    "EnforcedPowerLimit",
    "Temperature",
    "ClockInfo",
    "MaxClockInfo",
    "CurrentClocksEventReasons",
    "EccMode",
    "MigMode",
    "ComputeRunningProcesses",
    "GraphicsRunningProcesses",
    "MPSComputeRunningProcesses",
]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_gpu_that_is_lost_in_the_middle_is_failed_whatever_was_asked(name: str) -> None:
    assert states(read(FakeGpu("GPU-a", faults={f"nvmlDeviceGet{name}": LOST}))) == [("GPU-a", 0, Failure.OFF_BUS)]


def test_what_a_gpu_does_not_have_is_left_open() -> None:
    [reading] = read(FakeGpu("GPU-a", faults={f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in OPTIONAL}))
    assert reading.failure == ""
    assert (reading.utilization_fraction, reading.memory_utilization_fraction) == (None, None)
    assert (reading.power_watts, reading.power_limit_watts, reading.temperature_celsius) == (None, None, None)
    assert (reading.sm_clock_mhz, reading.max_sm_clock_mhz, reading.memory_clock_mhz) == (None, None, None)
    assert (reading.throttles, reading.ecc, reading.is_mig_enabled, reading.processes) == ((), None, None, ())


def test_units_are_those_of_the_contract() -> None:
    [reading] = read(FakeGpu("GPU-a", utilization=42, memory_utilization=7))
    assert (reading.utilization_fraction, reading.memory_utilization_fraction) == (0.42, 0.07)
    assert (reading.power_watts, reading.power_limit_watts, reading.temperature_celsius) == (71.5, 700.0, 33)
    assert (reading.sm_clock_mhz, reading.max_sm_clock_mhz, reading.memory_clock_mhz) == (1200, 1980, 3200)
    assert reading.ecc == Ecc(is_enabled=True, corrected_count=5, uncorrected_count=1)
    assert reading.is_mig_enabled is False


THROTTLES = {
    "nothing": (0, ()),
    "idle": (pynvml.nvmlClocksEventReasonGpuIdle, ()),
    "power": (pynvml.nvmlClocksEventReasonSwPowerCap, (Throttle.POWER_CAP,)),
    "power brake": (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, (Throttle.POWER_BRAKE,)),
    "warm": (pynvml.nvmlClocksEventReasonSwThermalSlowdown, (Throttle.SOFTWARE_THERMAL,)),
    "hot": (
        pynvml.nvmlClocksEventReasonHwThermalSlowdown | pynvml.nvmlClocksEventReasonHwSlowdown,
        (Throttle.HARDWARE_THERMAL, Throttle.HARDWARE_SLOWDOWN),
    ),
    "set": (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, (Throttle.USER_CLOCKS,)),
    "in step": (pynvml.nvmlClocksEventReasonSyncBoost, (Throttle.SYNC_BOOST,)),
    "a reason that is not known": (1 << 40, ()),
}


@pytest.mark.parametrize(("bits", "throttles"), THROTTLES.values(), ids=THROTTLES)
def test_why_clocks_are_low_is_told_bit_by_bit(bits: int, throttles: tuple[Throttle, ...]) -> None:
    [reading] = read(FakeGpu("GPU-a", throttle_bits=bits))
    assert reading.throttles == throttles


def test_a_gpu_that_is_cut_into_instances_is_not_used() -> None:
    cut, whole = read(FakeGpu("GPU-a", is_mig_enabled=True), FakeGpu("GPU-b"))
    assert (cut.failure_kind, cut.is_mig_enabled, cut.product_name) == (
        Failure.MIG_ENABLED,
        True,
        "80 GiB of nothing",
    )
    assert cut.failure == "it is cut into instances (MIG), which are not served: switch MIG off"
    assert whole.failure == ""


def test_a_gpu_that_the_driver_does_not_name_any_more_is_missing_and_no_other_takes_its_identity() -> None:
    first, second = FakeGpu("GPU-a"), FakeGpu("GPU-b", total=24 * GIB)
    nvml = FakeNvml(first, second)
    gpus = gpus_of(nvml)
    gpus.sample([])
    nvml.gpus.remove(first)  # NVML counts anew
    left, missing = gpus.sample([])
    assert (left.uuid, left.index, left.total_bytes, left.failure) == ("GPU-b", 0, 24 * GIB, "")
    assert (missing.uuid, missing.index, missing.failure_kind) == ("GPU-a", 1, Failure.MISSING)
    assert (missing.total_bytes, missing.failure) == (80 * GIB, "the driver does not name it any more")
    nvml.gpus.insert(0, first)
    assert states(gpus.sample([])) == [("GPU-a", 0, None), ("GPU-b", 1, None)]


def test_a_machine_that_lost_its_only_gpu_is_no_cpu_node() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"))
    gpus = gpus_of(nvml)
    gpus.sample([])
    nvml.gpus.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, Failure.MISSING)]


def test_a_driver_that_fails_as_a_whole_fails_every_gpu() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    gpus = gpus_of(nvml)
    gpus.sample([])
    nvml.faults["nvmlDeviceGetCount"] = pynvml.NVML_ERROR_UNKNOWN
    assert states(gpus.sample([])) == [("GPU-a", 0, Failure.DRIVER_ERROR), ("GPU-b", 1, Failure.DRIVER_ERROR)]


def test_gpus_are_back_after_a_restart_of_the_driver() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    gpus = gpus_of(nvml)
    gpus.sample([])
    nvml.is_open = False  # the driver was unloaded, and whoever had opened it is told so
    nvml.faults["nvmlInit"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    for _ in range(3):
        assert states(gpus.sample([])) == [("GPU-a", 0, Failure.DRIVER_GONE), ("GPU-b", 1, Failure.DRIVER_GONE)]
    nvml.faults.clear()
    assert states(gpus.sample([])) == [("GPU-a", 0, None), ("GPU-b", 1, None)]


def test_while_a_gpu_is_lost_the_driver_is_opened_anew_now_and_then() -> None:
    gpu, other = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    nvml = FakeNvml(gpu, other)
    gpus = gpus_of(nvml)
    gpus.sample([])
    gpu.faults["nvmlDeviceGetHandleByIndex"] = LOST
    for _ in range(2 * REOPEN_AFTER + 1):
        gpus.sample([])
    assert nvml.asked.count("nvmlInit") == 3
    assert nvml.asked.count("nvmlShutdown") == 2
