"""Measures the processors and the memory of the host."""

from __future__ import annotations

import os

import psutil

from nodeagent.model import HostReading


class PsutilHost:
    """The machine that the agent runs on."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first answer means nothing: each is about the time since the one before

    def read(self) -> HostReading:
        """Returns what is so now."""
        memory = psutil.virtual_memory()
        return HostReading(
            cpu_count=len(os.sched_getaffinity(0)),
            cpu_fraction=min(1.0, psutil.cpu_percent() / 100),
            total_bytes=memory.total,
            available_bytes=memory.available,
        )
