"""Keeping several gateways, which are stood in for by shell scripts: what is kept does not matter here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from controlplane import gateway_group
from controlplane.gateway_config import GatewayConfig
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen
from roundhouse.kit.shared_port import shared_port
from tests.support.cluster import eventually
from tests.support.gateway_group import is_alive

SERVING = '#!/bin/sh\nfor last; do :; done\necho here > "$last"\nexec cat\n'  # it ends with its input
STARTING = "#!/bin/sh\nexec cat\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is run in place of Python."""
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def write(program: Path, script: str) -> None:
    program.write_text(script)
    program.chmod(0o700)


def remove(program: Path) -> None:
    program.unlink()


async def until_running(count: int, *, but: int = 0) -> list[int]:
    """Waits until so many run, `but` not among them."""

    def found() -> list[int]:
        return [each.pid for each in psutil.Process().children() if is_alive(each) and each.name() == "cat"]

    await eventually(lambda: len(found()) == count and but not in found(), f"{count} run")
    return found()


@contextlib.asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[asyncio.Event]:
    """Keeps them for the block, and waits until that has ended."""
    stop = asyncio.Event()
    task = asyncio.create_task(gateway_group.run(config, [], stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task


async def test_one_that_cannot_be_started_again_is_tried_until_it_can_and_the_other_goes_on(
    tmp_path: Path, program: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(program, SERVING)
    announced = tmp_path / "address"
    config = GatewayConfig(Listen("127.0.0.1", 0), "127.0.0.1:9", address_file=announced, gateway_count=2)
    async with running(config):
        one, other = await until_running(2)
        await eventually(announced.exists, "they serve")
        remove(program)
        os.kill(one, signal.SIGKILL)
        await eventually(lambda: "cannot be started" in "".join(capfd.readouterr()), "it was tried")
        write(program, SERVING)
        assert other in await until_running(2, but=one)
    assert await until_running(0) == []


async def test_an_end_that_is_asked_for_during_the_start_is_heard_at_once(tmp_path: Path, program: Path) -> None:
    write(program, STARTING)
    announced = tmp_path / "address"
    config = GatewayConfig(Listen("127.0.0.1", 0), "127.0.0.1:9", address_file=announced, gateway_count=2)
    async with running(config) as stop:
        gateways = await until_running(2)
        assert [os.getsid(each) for each in gateways] == gateways  # Ctrl-C is not for them
        stop.set()
        await until_running(0)
    assert not announced.exists()


@pytest.mark.usefixtures("program")
async def test_what_cannot_be_started_at_all_is_said_in_one_line() -> None:
    config = GatewayConfig(Listen("127.0.0.1", 0), "127.0.0.1:9", gateway_count=2)
    with pytest.raises(Usage, match="the gateways cannot be started"):
        await gateway_group.run(config, [], asyncio.Event())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_has_one_holder_also_while_nobody_listens_yet(host: str) -> None:
    async with shared_port(host, 0) as port:
        with pytest.raises(Usage, match="the port is in use"):
            async with shared_port(host, port):
                pass
    async with shared_port(host, port) as again:
        assert again == port
