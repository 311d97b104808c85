"""How GPUs are joined, and which of them are an island of NVLink."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.gpus.topology import islands
from nodeagent.model import Link, LinkKind
from tests.support.fake_nvml import FakeGpu, FakeNvml, gpus_of

LEVELS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: LinkKind.BOARD,
    pynvml.NVML_TOPOLOGY_SINGLE: LinkKind.PCIE_SWITCH,
    pynvml.NVML_TOPOLOGY_MULTIPLE: LinkKind.PCIE_SWITCH,
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: LinkKind.HOST_BRIDGE,
    pynvml.NVML_TOPOLOGY_NODE: LinkKind.NUMA_NODE,
    pynvml.NVML_TOPOLOGY_SYSTEM: LinkKind.SYSTEM,
    60: LinkKind.SYSTEM,
}


@pytest.mark.parametrize(("level", "kind"), LEVELS.items())
def test_without_nvlink_the_way_is_what_both_hang_on(level: int, kind: LinkKind) -> None:
    first, second = gpus_of(
        FakeNvml(FakeGpu("a", ancestors={"b": level}), FakeGpu("b", ancestors={"a": level}))
    ).sample([])
    assert (first.links, second.links) == ((Link(1, kind),), (Link(0, kind),))
    assert first.nvlink_island is second.nvlink_island is None


def test_nvlink_goes_before_all_other_ways() -> None:
    pair = [FakeGpu("a", nvlink=frozenset("b")), FakeGpu("b", nvlink=frozenset("a"))]
    first, second, third = gpus_of(FakeNvml(*pair, FakeGpu("c"))).sample([])
    assert first.links == (Link(1, LinkKind.NVLINK), Link(2, LinkKind.SYSTEM))
    assert (first.nvlink_island, second.nvlink_island, third.nvlink_island) == (0, 0, None)


def test_gpus_that_do_not_tell_have_no_links() -> None:
    functions = ("nvmlDeviceGetP2PStatus", "nvmlDeviceGetTopologyCommonAncestor")
    faults = dict.fromkeys(functions, pynvml.NVML_ERROR_NOT_SUPPORTED)
    readings = gpus_of(FakeNvml(FakeGpu("a", faults=faults), FakeGpu("b", faults=faults))).sample([])
    assert [(each.failure, each.links, each.nvlink_island) for each in readings] == [("", (), None)] * 2


def test_the_same_gpus_are_asked_once_and_others_anew() -> None:
    nvml = FakeNvml(FakeGpu("a"), FakeGpu("b"), FakeGpu("c"))
    gpus = gpus_of(nvml)
    gpus.sample([])
    gpus.sample([])
    assert nvml.asked.count("nvmlDeviceGetTopologyCommonAncestor") == 6
    del nvml.gpus[0]
    left = gpus.sample([])
    assert [each.links for each in left] == [(Link(1, LinkKind.SYSTEM),), (Link(0, LinkKind.SYSTEM),), ()]


def test_a_gpu_that_is_lost_while_it_is_asked_costs_the_links_and_no_more() -> None:
    lost = FakeGpu("b", faults={"nvmlDeviceGetP2PStatus": pynvml.NVML_ERROR_GPU_IS_LOST})
    gpus = gpus_of(FakeNvml(FakeGpu("a"), lost))
    assert [(each.failure, each.links) for each in gpus.sample([])] == [("", ())] * 2
    lost.faults.clear()
    assert [each.links for each in gpus.sample([])] == [(Link(1, LinkKind.SYSTEM),), (Link(0, LinkKind.SYSTEM),)]


def of(count: int, pairs: Sequence[tuple[int, int]]) -> dict[int, frozenset[int]]:
    joined = {*pairs, *((b, a) for a, b in pairs)}
    return {index: frozenset(b for a, b in joined if a == index) for index in range(count)}


QUADS = [*combinations(range(4), 2), *combinations(range(4, 8), 2)]
ISLANDS = {
    "none": ([], {}),
    "pairs": ([(0, 1), (2, 3)], {0: 0, 1: 0, 2: 1, 3: 1}),
    "a switch for all": (list(combinations(range(8), 2)), dict.fromkeys(range(8), 0)),
    "two quads in a cube": ([*QUADS, (0, 4), (1, 5), (2, 6), (3, 7)], {each: each // 4 for each in range(8)}),
    "a chain": ([(0, 1), (1, 2)], {0: 0, 1: 0, 2: 1}),
}


@pytest.mark.parametrize(("pairs", "numbers"), ISLANDS.values(), ids=ISLANDS)
def test_an_island_is_where_each_reaches_every_other(pairs: list[tuple[int, int]], numbers: dict[int, int]) -> None:
    assert islands(of(8, pairs)) == numbers


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] != pair[1])))
def test_whatever_is_joined_islands_are_whole_and_nobody_with_nvlink_is_left_out(pairs: list[tuple[int, int]]) -> None:
    peers = of(8, pairs)
    numbers = islands(peers)
    assert set(numbers) == {index for index, others in peers.items() if others}
    assert set(numbers.values()) == set(range(len(set(numbers.values()))))
    for one, other in combinations(numbers, 2):
        assert numbers[one] != numbers[other] or other in peers[one]
