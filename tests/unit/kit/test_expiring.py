"""What is over is forgotten, by age and by number."""

from roundhouse.kit.expiring import Expiring
from tests.support.clock import FakeClock


def test_an_entry_lives_for_its_time_from_when_it_was_last_put() -> None:
    clock = FakeClock()
    kept: Expiring[str, int] = Expiring(clock, ttl_s=10, limit=100)
    kept.put("a", 1)
    clock.advance(6)
    kept.put("b", 2)
    kept.put("a", 3)
    clock.advance(9)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (3, 2, 2)
    clock.advance(1)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, None, 0)


def test_only_the_newest_are_kept() -> None:
    kept: Expiring[str, int] = Expiring(FakeClock(), ttl_s=10, limit=3)
    for number in range(5):
        kept.put(str(number), number)
    kept.put("2", 22)
    assert [kept.get(str(number)) for number in range(5)] == [None, None, 22, 3, 4]
