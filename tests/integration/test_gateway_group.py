"""Several gateways behind one port, as real processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import eventually
from tests.support.gateway_group import Group, gateway_group, is_alive

pytestmark = pytest.mark.slow

NOBODY = "127.0.0.1:9"  # they serve before they have heard of a control plane


def ended(gateways: dict[int, psutil.Process]) -> bool:
    return not any(is_alive(each) for each in gateways.values() if psutil.pid_exists(each.pid))


async def test_all_listen_on_the_port_one_that_dies_is_started_again_and_all_end_in_order(tmp_path: Path) -> None:
    async with gateway_group(tmp_path, NOBODY, 2) as group:
        one, other = await group.until_listening(2)
        psutil.Process(one).kill()
        assert other in await group.until_listening(2, but=one)
        gateways = group.gateways()
        group.process.send_signal(signal.SIGINT)
        assert group.process.wait(20) == 0
        assert ended(gateways)
    assert not (tmp_path / "gateways.address").exists()


async def test_they_end_with_whoever_keeps_them(tmp_path: Path) -> None:
    async with gateway_group(tmp_path, NOBODY, 2) as group:
        await group.until_listening(2)
        gateways = group.gateways()
        group.process.kill()
        await eventually(lambda: ended(gateways), "the gateways have ended")


async def test_nobody_else_gets_the_port_and_who_tries_is_told(tmp_path: Path) -> None:
    async with gateway_group(tmp_path, NOBODY, 2) as group:
        for count in ("1", "2"):
            assert refused(group, count) == (2, True)


async def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = start("--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--gateways", "2")
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "the port is in use" in told.stderr


def test_a_gateway_that_cannot_start_ends_all_with_its_own_words(tmp_path: Path) -> None:
    wrong = tmp_path / "no.pem"
    told = start("--listen", "127.0.0.1:0", "--gateways", "2", "--tls-cert", str(wrong), "--tls-key", str(wrong))
    assert told.returncode == 2
    assert str(wrong) in told.stderr
    assert "cannot start" in told.stderr


def refused(group: Group, count: str) -> tuple[int, bool]:
    told = start("--listen", group.address, "--gateways", count)
    return told.returncode, "the port is in use" in told.stderr


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controlplane", "--role", "gateway", "--control-plane", NOBODY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
