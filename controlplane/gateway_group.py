"""`--gateways N`: so many gateways behind one port, each a process that is kept running by this one, which is none."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog

from controlplane.gateway_config import GatewayConfig
from roundhouse.kit.backoff import Backoff
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import announced
from roundhouse.kit.shared_port import shared_port
from roundhouse.kit.tasks import looping

START_WITHIN_S = 60.0
END_GRACE_S = 8.0  # a gateway gives its calls 2 s, and as long again to tell engines of clients that are gone
RESTART = Backoff(first_s=0.2, cap_s=10.0)
STEADY_S = 10.0  # one that lived this long did not die of how it was started
_LOOK_S = 0.05

log = structlog.get_logger()


async def run(config: GatewayConfig, arguments: Sequence[str], stop: asyncio.Event) -> None:
    """Runs the gateways until `stop` is set. Raises Usage if they cannot start.

    arguments: those that this process was started with; each gateway gets them too.
    """
    async with shared_port(config.listen.host, config.listen.port) as port:
        address = f"{config.listen.host}:{port}"
        with tempfile.TemporaryDirectory(prefix="roundhouse-gateways-") as folder:
            gateways = [
                _Gateway(number, [*arguments, "--listen", address], Path(folder))
                for number in range(config.gateway_count)
            ]
            async with _running(gateways, stop):
                if stop.is_set():  # before all served
                    return
                with announced(config.address_file, address):
                    log.info("gateways serving", address=address, count=len(gateways))
                    async with looping({f"gateway {each.number}": each.keep for each in gateways}):
                        await stop.wait()
                    log.info("gateways stop")


class _Gateway:
    """One of them, over all its lives."""

    def __init__(self, number: int, arguments: Sequence[str], folder: Path) -> None:
        self.number = number
        self._address = folder / f"gateway-{number}"  # where it says that it serves
        # What is said last counts. One that loses its standard input has lost whoever started it, and ends.
        own = ["--gateways", "1", "--shares-port", "--address-file", str(self._address)]
        self._command = [sys.executable, "-m", "controlplane", *arguments, *own]
        self._process: Process | None = None

    async def spawn(self) -> None:
        """Starts a life of it."""
        self._address.unlink(missing_ok=True)
        # In a session of its own: Ctrl-C is for this process to hear, which then ends all in order.
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, start_new_session=True)

    async def serving(self, stop: asyncio.Event) -> None:
        """Waits until it serves, or `stop` is set. Raises Usage if it ends before, having said why."""
        process = self._process
        assert process is not None
        while not (self._address.exists() or stop.is_set()):
            if process.returncode is not None:
                raise Usage(f"gateway {self.number} cannot start: mend what it says above")
            await asyncio.sleep(_LOOK_S)

    async def keep(self) -> None:
        """Starts it again whenever it ends, with backoff."""
        failures = 0
        while True:
            assert self._process is not None
            began_s = time.monotonic()
            status = await self._process.wait()
            failures = 0 if time.monotonic() - began_s > STEADY_S else failures
            log.warning("gateway ended; it is started again", number=self.number, status=status)
            has_begun = False
            while not has_begun:
                await asyncio.sleep(RESTART.delay_s(failures))
                failures += 1
                has_begun = await self._respawn()

    async def _respawn(self) -> bool:
        try:
            await self.spawn()
        except OSError as error:  # the system has no process or no memory left: the other gateways go on
            log.warning("gateway cannot be started; it is tried again", number=self.number, error=str(error))
            return False
        return True

    async def end(self) -> None:
        """Asks it to end, and ends it if that takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_GRACE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _running(gateways: Sequence[_Gateway], stop: asyncio.Event) -> AsyncIterator[None]:
    """Runs them for the block, from the moment when all serve, or when `stop` is set."""
    try:
        try:
            for each in gateways:
                await each.spawn()
        except OSError as error:
            raise Usage(f"the gateways cannot be started ({error}): give this user more, or use fewer") from error
        try:
            async with asyncio.timeout(START_WITHIN_S):
                for each in gateways:
                    await each.serving(stop)
        except TimeoutError as error:
            raise Usage(f"the gateways do not serve after {START_WITHIN_S:g} s: see what they say above") from error
        yield
    finally:
        await asyncio.gather(*(each.end() for each in gateways))
