"""Chooses several GPUs of one node for one replica. Pure.

A room says how many replicas one GPU can take part in. GPUs are given in the order of their ranks, the best first, by
room and by NVLink island; None: joined to no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def most(rooms: Sequence[int], size: int, limit: int) -> int:
    """Returns how many replicas of `size` different GPUs each fit, at most `limit`.

    So many as k fit if and only if the rooms, none counted beyond k, add up to k * size.
    """
    fewest, too_many = 0, max(0, min(limit, sum(rooms) // size)) + 1
    while too_many - fewest > 1:
        middle = (fewest + too_many) // 2
        if size == 1 or sum([min(room, middle) for room in rooms]) >= middle * size:
            fewest = middle
        else:
            too_many = middle
    return fewest


def choose(rooms: Sequence[int], islands: Sequence[int | None], size: int, left: int) -> list[list[int]]:
    """Returns sets of GPUs for one replica, after each of which `left` more would fit: of those that do, the best.

    All rooms are above 0 and take `left + 1` replicas. If there are sets within one island it returns the best of every
    island, else the best of all.
    """
    within = [
        found
        for island in sorted({each for each in islands if each is not None})
        if (found := _best(rooms, [at for at, each in enumerate(islands) if each == island], size, left))
    ]
    if within:
        return within
    best = _best(rooms, range(len(rooms)), size, left)
    assert best is not None, "there is room for one more than are left"
    return [best]


def divide(rooms: Sequence[int], islands: Sequence[int | None], size: int) -> list[list[int]]:
    """Divides GPUs into sets of `size`, such that no other division has a set with more room in any position.

    That is so if each set takes the roomiest that are left. Among equals those of one island stay together.
    """
    if size == 1:
        return [[at] for at in range(len(rooms))]
    ordered = [at for room in sorted(set(rooms), reverse=True) for at in _by_island(rooms, islands, size, room)]
    return [ordered[at : at + size] for at in range(0, len(ordered) - size + 1, size)]


def _best(rooms: Sequence[int], among: Sequence[int], size: int, left: int) -> list[int] | None:
    """Returns the first `size` GPUs that can be taken; None if these alone are not enough."""
    if left <= 0:
        return list(among[:size]) if len(among) >= size else None
    # A GPU with more room than is asked for afterwards loses nothing; each of the others costs 1 of what is to spare.
    spare = sum([min(room, left) for room in rooms]) - left * size
    chosen: list[int] = []
    for at in among:
        if rooms[at] <= left:
            if spare == 0:
                continue
            spare -= 1
        chosen.append(at)
        if len(chosen) == size:
            return chosen
    return None


def _by_island(rooms: Sequence[int], islands: Sequence[int | None], size: int, room: int) -> Iterator[int]:
    """Yields the GPUs of this room: first of every island as many as make up whole sets, then the others."""
    of_island: dict[int | None, list[int]] = {}
    for at, each in enumerate(rooms):
        if each == room:
            of_island.setdefault(islands[at], []).append(at)
    single = of_island.pop(None, [])
    for members in of_island.values():
        whole = len(members) // size * size
        yield from members[:whole]
        single += members[whole:]
    yield from sorted(single)
