"""The log of a process is no reason for it to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOGS_AND_GOES_ON = """
import structlog
from roundhouse.kit import logs

logs.configure()
log = structlog.get_logger()
for _ in range(1000):  # more than any buffer takes
    log.info("something happened", why="x" * 100)
print("went on")
"""


def test_a_process_whose_log_finds_no_room_goes_on() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", LOGS_AND_GOES_ON]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert ended.stdout == "went on\n"
