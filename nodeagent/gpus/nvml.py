"""GPUs as NVML sees them. One that cannot be used is reported as failed, with a reason, and is not forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pynvml

from nodeagent.gpus.details import details
from nodeagent.gpus.driver import Driver, failure_of
from nodeagent.gpus.processes import Owners, Pids, ProcPids, held_memory, our_bytes
from nodeagent.gpus.topology import Topology
from nodeagent.model import Failure, Occupant, Reading, unknown_gpu

# NVML counts GPUs when it is opened, so only then is one seen that has come back. Opening may take a second.
REOPEN_AFTER = 10  # samples with a GPU that is lost
_MIG = "it is cut into instances (MIG), which are not served: switch MIG off"
_MISSING = "the driver does not name it any more"

_Found = Mapping[int, tuple[str, Any]]  # uuid and handle by index


class NvmlGpus:
    """Every GPU of the machine; none while there is no driver and no sign of one.

    Its calls block, and may hang when the driver does.
    """

    def __init__(self, driver: Driver, pids: Pids | None = None, *, is_simulated: bool = False) -> None:
        self._driver, self._is_simulated = driver, is_simulated
        self._owners, self._topology = Owners(pids or ProcPids()), Topology(driver)
        # By UUID, for the life of the agent. An index does not tell GPUs apart: once one is lost, NVML counts anew.
        self._known: dict[str, Reading] = {}
        self._lost_count = 0  # samples in a row with a GPU that is lost

    @property
    def driver_version(self) -> str:
        """Returns the version of the driver; empty until it is known."""
        return self._driver.version

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns what each GPU says now. Memory of processes in the session of an engine counts as that engine's."""
        try:
            self._driver.open()
            found, broken = self._enumerate()
        except pynvml.NVMLError as error:
            return self._without_driver(error)
        self._owners.begin(occupants)
        readings = [self._read(index, uuid, handle, occupants) for index, (uuid, handle) in found.items()]
        readings += self._unreachable(broken, {uuid for uuid, _ in found.values()})
        readings += self._missing(readings)
        self._close_if_needed(readings)
        return self._joined(sorted(readings, key=lambda each: each.index), found)

    def _enumerate(self) -> tuple[_Found, Mapping[int, pynvml.NVMLError]]:
        """Returns the GPUs that can be reached, and by index why others cannot."""
        nvml = self._driver.nvml
        found: dict[int, tuple[str, Any]] = {}
        broken: dict[int, pynvml.NVMLError] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found[index] = (nvml.nvmlDeviceGetUUID(handle), handle)
            except pynvml.NVMLError as error:
                broken[index] = error
        return found, broken

    def _read(self, index: int, uuid: str, handle: Any, occupants: Sequence[Occupant]) -> Reading:
        driver, nvml = self._driver, self._driver.nvml
        known = self._keep(replace(self._known.get(uuid) or self._unknown(index), uuid=uuid, index=index))
        try:
            known = self._keep(replace(known, product_name=nvml.nvmlDeviceGetName(handle)))
            mode = driver.ask(nvml.nvmlDeviceGetMigMode, handle)
            if mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
                # What it says of its memory as a whole is not what an engine could have.
                return replace(known.failed(Failure.MIG_ENABLED, _MIG), is_mig_enabled=True)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            known = self._keep(replace(known, total_bytes=memory.total))
            whole = driver.ask(nvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
            held = held_memory(driver, handle)
            said = details(driver, handle)
        except pynvml.NVMLError as error:
            return known.failed(failure_of(error), str(error))
        # NVML's own `used` leaves out what the driver keeps, or not, by its version.
        used = memory.total - memory.free
        measured = self._owners.measured(held)
        processes, omitted_count = self._owners.processes(held)
        return replace(
            known,
            used_bytes=used,
            free_bytes=memory.free,
            foreign_bytes=max(0, used - our_bytes(uuid, measured, occupants)),
            driver_bytes=0 if whole is None else min(used, whole.reserved),
            measured_bytes=measured,
            processes=processes,
            omitted_process_count=omitted_count,
            is_mig_enabled=None if mode is None else False,
            **said,
        )

    def _keep(self, identity: Reading) -> Reading:
        self._known[identity.uuid] = identity
        return identity

    def _unknown(self, index: int) -> Reading:
        return replace(unknown_gpu(index, Failure.DRIVER_ERROR, ""), is_simulated=self._is_simulated)

    def _unreachable(self, broken: Mapping[int, pynvml.NVMLError], found: set[str]) -> list[Reading]:
        """Returns what is known of the GPUs at these indexes, which do not even give their UUID."""
        lost = {each.index: each for each in self._known.values() if each.uuid not in found}
        return [
            (lost.get(index) or self._unknown(index)).failed(failure_of(error), str(error))
            for index, error in broken.items()
        ]

    def _missing(self, readings: Sequence[Reading]) -> list[Reading]:
        """Returns the GPUs that were there once and are not now, under indexes that no other has."""
        seen, taken = {each.uuid for each in readings}, {each.index for each in readings}
        missing = []
        for each in self._known.values():
            if each.uuid not in seen:
                index = each.index if each.index not in taken else next(i for i in count() if i not in taken)
                taken.add(index)
                missing.append(replace(each.failed(Failure.MISSING, _MISSING), index=index))
        return missing

    def _joined(self, readings: Sequence[Reading], found: _Found) -> Sequence[Reading]:
        try:
            self._topology.look(found)
        except pynvml.NVMLError:
            return readings  # that GPU says so itself; the set is asked about again
        return [
            replace(each, links=self._topology.links(each.index), nvlink_island=self._topology.island(each.index))
            if each.index in found
            else each
            for each in readings
        ]

    def _close_if_needed(self, readings: Sequence[Reading]) -> None:
        kinds = [each.failure_kind if each.failure else None for each in readings]
        is_lost = Failure.OFF_BUS in kinds or Failure.MISSING in kinds
        self._lost_count = self._lost_count + 1 if is_lost else 0
        if Failure.DRIVER_GONE in kinds or (is_lost and self._lost_count % REOPEN_AFTER == 0):
            self._driver.close()

    def _without_driver(self, error: pynvml.NVMLError) -> Sequence[Reading]:
        """Returns what is known when NVML cannot be used at all."""
        kind = failure_of(error)
        if kind is Failure.DRIVER_GONE:
            self._driver.close()
        if not self._known and self._driver.is_absent(error):
            return ()
        # There is a driver, so there is a GPU: a node without any would be given engines for its processors.
        known = sorted(self._known.values(), key=lambda each: each.index) or [self._unknown(0)]
        return [each.failed(kind, str(error)) for each in known]
