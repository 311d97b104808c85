"""Says in the bundle directory that the engine listens, and which process it is."""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf import json_format

from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import write_atomically

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TICKS = 22 - 3  # `proc(5)` counts fields from 1; two stand before the name's closing bracket


def write_ready(path: Path, address: str, engine_uuid: str) -> None:
    """Renames the file into place; raises Usage if the directory does not take it."""
    ready = engine_spec_pb2.EngineReady(
        address=address,
        pid=os.getpid(),
        process_start_ticks=process_start_ticks(),
        boot_id=BOOT_ID.read_text().strip(),
        engine_uuid=engine_uuid,
    )
    try:
        write_atomically(path, json_format.MessageToJson(ready).encode())
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}: the bundle directory must be writable") from error


def process_start_ticks() -> int:
    """Returns when this process started, in clock ticks since boot."""
    # The name of the program may hold spaces and brackets, so fields are counted behind its last bracket.
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
    return int(after_name.split()[_START_TICKS])
