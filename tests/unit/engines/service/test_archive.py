from engines.service.archive import Archive
from tests.support.clock import FakeClock


def test_each_is_kept_for_its_own_time() -> None:
    clock = FakeClock()
    archive: Archive[str] = Archive(clock, limit=100)
    archive.put("long", "a", size=1, ttl_s=10)
    archive.put("short", "b", size=1, ttl_s=5)
    clock.advance(5)
    assert (archive.get("long"), archive.get("short"), archive.size) == ("a", None, 1)
    clock.advance(5)
    assert (archive.get("long"), archive.size) == (None, 0)


def test_the_oldest_go_first_when_all_come_to_too_much() -> None:
    archive: Archive[int] = Archive(FakeClock(), limit=10)
    for number in range(5):
        archive.put(str(number), number, size=4, ttl_s=10)
    assert [archive.get(str(number)) for number in range(5)] == [None, None, None, 3, 4]
    archive.put("large", 7, size=11, ttl_s=10)
    assert (archive.get("large"), archive.size) == (None, 0)


def test_what_is_put_anew_lives_anew() -> None:
    clock = FakeClock()
    archive: Archive[str] = Archive(clock, limit=10)
    archive.put("a", "before", size=3, ttl_s=5)
    clock.advance(4)
    archive.put("a", "after", size=5, ttl_s=5)
    clock.advance(4)
    assert (archive.get("a"), archive.size) == ("after", 5)
    archive.drop("a")
    assert (archive.get("a"), archive.size) == (None, 0)
