"""Runs `roundhouse` as a user does, beside a control plane in this very process."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int | None
    out: str
    err: str


async def roundhouse(address: str, *arguments: str) -> Ended:
    command = [sys.executable, "-m", "roundhouse.cli", "--address", address, *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())
