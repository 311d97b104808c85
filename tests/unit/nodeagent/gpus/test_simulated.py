"""GPUs that are not there behave as if engines used what they reserve."""

from __future__ import annotations

from nodeagent.gpus.simulated import SimulatedGpus
from nodeagent.model import Occupant

GIB = 1024**3


def on(*indexes: int, uid: str = "r", gib: int = 4, busy: float = 0.0) -> Occupant:
    return Occupant(uid, tuple(f"SIM-a-{index}" for index in indexes), gib * GIB, busy_fraction=busy)


def test_memory_is_charged_by_what_is_reserved() -> None:
    first, second = SimulatedGpus("a", 2, 24 * GIB).sample([on(0, uid="r"), on(0, 1, uid="s")])
    assert (first.used_bytes, first.free_bytes, first.foreign_bytes) == (8 * GIB, 16 * GIB, 0)
    assert first.measured_bytes == {"r": 4 * GIB, "s": 4 * GIB}
    assert second.measured_bytes == {"s": 4 * GIB}


def test_utilization_is_what_the_engines_on_it_spend_in_steps_and_at_most_all() -> None:
    first, second = SimulatedGpus("a", 2, 24 * GIB).sample([on(0, busy=0.3), on(0, 1, uid="s", busy=0.9)])
    assert (first.utilization_fraction, second.utilization_fraction) == (1.0, 0.9)


def test_more_than_there_is_cannot_be_used() -> None:
    [only] = SimulatedGpus("a", 1, 2 * GIB).sample([on(0)])
    assert (only.used_bytes, only.free_bytes) == (2 * GIB, 0)


def test_names_tell_node_and_index() -> None:
    readings = SimulatedGpus("a", 2, GIB).sample([])
    assert [(each.uuid, each.index, each.is_simulated) for each in readings] == [
        ("SIM-a-0", 0, True),
        ("SIM-a-1", 1, True),
    ]
