"""GPUs that are not there: memory is charged by what is reserved, utilization by how busy the engines on them are."""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.model import Occupant, Reading


class SimulatedGpus:
    """A number of equal GPUs of node `node_id`."""

    def __init__(self, node_id: str, count: int, bytes_each: int) -> None:
        self._uuids = [f"SIM-{node_id}-{index}" for index in range(count)]
        self._bytes_each = bytes_each

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns what each GPU would say with these engines on it."""
        return [self._read(index, uuid, occupants) for index, uuid in enumerate(self._uuids)]

    def _read(self, index: int, uuid: str, occupants: Sequence[Occupant]) -> Reading:
        here = [each for each in occupants if uuid in each.gpu_uuids]
        used = min(self._bytes_each, sum(each.reserved_bytes for each in here))
        return Reading(
            uuid=uuid,
            index=index,
            product_name="simulated GPU",
            is_simulated=True,
            total_bytes=self._bytes_each,
            used_bytes=used,
            free_bytes=self._bytes_each - used,
            measured_bytes={each.replica_uid: each.reserved_bytes for each in here},
            utilization_fraction=min(1.0, sum(each.busy_fraction for each in here)),
        )
