"""GPUs that are not there: a scripted NVML under the code that reads a real one, charged with our engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nodeagent.gpus.driver import Driver
from nodeagent.gpus.nvml import NvmlGpus
from nodeagent.gpus.script import Script
from nodeagent.gpus.scripted import ScriptedNvml
from nodeagent.model import Occupant, Reading


class SimulatedGpus:
    """The GPUs of a script, on node `node_id`. An engine uses what is reserved for it as long as it has a process."""

    driver_version = ""

    def __init__(self, node_id: str, script: Script, now_s: Callable[[], float] = time.monotonic) -> None:
        self._nvml = ScriptedNvml(node_id, script, now_s)
        driver = Driver(self._nvml, has_devices=lambda: True)
        self._gpus = NvmlGpus(driver, self._nvml, is_simulated=True)

    def sample(self, occupants: Sequence[Occupant]) -> Sequence[Reading]:
        """Returns what each GPU would say with these engines on it."""
        self._nvml.occupants = occupants
        return self._gpus.sample(occupants)
