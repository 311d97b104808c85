"""Finds out how GPUs are joined: the shortest way between any two, and which reach one another over NVLink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pynvml

from nodeagent.gpus.driver import Driver
from nodeagent.model import Link, LinkKind

_KINDS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: LinkKind.BOARD,
    pynvml.NVML_TOPOLOGY_SINGLE: LinkKind.PCIE_SWITCH,
    pynvml.NVML_TOPOLOGY_MULTIPLE: LinkKind.PCIE_SWITCH,
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: LinkKind.HOST_BRIDGE,
    pynvml.NVML_TOPOLOGY_NODE: LinkKind.NUMA_NODE,
    pynvml.NVML_TOPOLOGY_SYSTEM: LinkKind.SYSTEM,
}


class Topology:
    """How GPUs are joined. It does not change while they are there, so each set of GPUs is asked about once."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._of: tuple[tuple[int, str], ...] = ()
        self._links: Mapping[int, tuple[Link, ...]] = {}
        self._islands: Mapping[int, int] = {}

    def look(self, gpus: Mapping[int, tuple[str, Any]]) -> None:
        """Learns how these GPUs, with uuid and handle by index, are joined. Raises NVMLError if one cannot be used."""
        of = tuple((index, uuid) for index, (uuid, _) in gpus.items())
        if of == self._of:
            return
        self._links = {index: tuple(self._links_of(index, gpus)) for index in gpus}
        self._islands = islands({index: linked(links) for index, links in self._links.items()})
        self._of = of

    def links(self, index: int) -> tuple[Link, ...]:
        """Returns the ways from a GPU to all others; empty if it does not tell."""
        return self._links.get(index, ())

    def island(self, index: int) -> int | None:
        """Returns the number of its island; None for a GPU without NVLink."""
        return self._islands.get(index)

    def _links_of(self, index: int, gpus: Mapping[int, tuple[str, Any]]) -> Sequence[Link]:
        _, handle = gpus[index]
        kinds = {peer: self._kind(handle, other) for peer, (_, other) in gpus.items() if peer != index}
        return [Link(peer, kind) for peer, kind in kinds.items() if kind is not None]

    def _kind(self, one: Any, other: Any) -> LinkKind | None:
        nvml, ask = self._driver.nvml, self._driver.ask
        status = ask(nvml.nvmlDeviceGetP2PStatus, one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
        if status == pynvml.NVML_P2P_STATUS_OK:
            return LinkKind.NVLINK
        level = ask(nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
        return None if level is None else _KINDS.get(level, LinkKind.SYSTEM)


def linked(links: Sequence[Link]) -> frozenset[int]:
    """Returns the indexes of the GPUs at the other ends of NVLink."""
    return frozenset(each.peer_index for each in links if each.kind is LinkKind.NVLINK)


def islands(peers: Mapping[int, frozenset[int]]) -> Mapping[int, int]:
    """Returns the number of the island of each GPU that has NVLink: within one, each reaches every other.

    peers: what each GPU reaches over NVLink. Not every such relation is transitive (the cube of eight V100 is not), so
    a GPU joins the first island all of whose members it reaches, and may reach some beyond it.
    """
    found: list[set[int]] = []
    for index in sorted(peers):
        if not peers[index]:
            continue
        mine = next((each for each in found if all(index in peers[at] and at in peers[index] for at in each)), None)
        if mine is None:
            found.append({index})
        else:
            mine.add(index)
    return {index: number for number, members in enumerate(found) for index in members}
