"""A watch while nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator

from roundhouse.client import deployment
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Context, Service
from roundhouse.v1 import deployment_service_pb2, watch_pb2
from tests.support.scripted_cluster import scripted_cluster
from tests.support.terminal import Terminal
from tests.unit.cli.conftest import Cli

LOST = r"127\.0\.0\.1:\d+ does not answer since \d\d:\d\d:\d\d; shown is what was last seen"


@contextlib.asynccontextmanager
async def watched(*arguments: str) -> AsyncIterator[tuple[subprocess.Popen[str], int]]:
    """Yields a watch on pipes that has seen `demo-2`, and the port of its cluster, which is gone by then."""
    async with scripted_cluster() as (serving, _, _):
        watching = Cli(serving.address).start("replicas", "--watch", *arguments)
        try:
            assert watching.stdout is not None
            while re.match(r'demo-2|{"bookmark"', await asyncio.to_thread(watching.stdout.readline)) is None:
                assert watching.poll() is None
        except BaseException:
            watching.kill()
            raise
    try:
        yield watching, serving.port
    finally:
        watching.kill()
        watching.communicate()


@contextlib.asynccontextmanager
async def watched_at_a_terminal(brief: str) -> AsyncIterator[tuple[Terminal, int]]:
    """Yields a watch at a terminal that has seen the replica of this deployment, and the port of its lost cluster."""
    async with contextlib.AsyncExitStack() as stack:
        serving, cluster, _ = await stack.enter_async_context(scripted_cluster())
        cluster.add(deployment(brief, builtin="demo"))
        cli = Cli(serving.address)
        with Terminal(cli.command("replicas", "--watch"), cli.environ()) as terminal:
            await asyncio.to_thread(terminal.read_until, f"{brief}-0")
            await stack.aclose()
            assert re.search(LOST, await asyncio.to_thread(terminal.read_until, "last seen"))
            yield terminal, serving.port


async def interrupted(terminal: Terminal) -> str:
    """Returns what Ctrl-C leaves on the terminal."""
    terminal.interrupt()
    shown = await asyncio.to_thread(terminal.read_to_the_end)
    assert terminal.end() == 130
    return shown.rpartition("\x1b[?1049l")[2]  # here the screen of before comes back


class Ending:
    """A DeploymentService that ends a watch as if all were said."""

    async def WatchReplicas(self, request: deployment_service_pb2.WatchReplicasRequest, context: Context) -> None:
        event = deployment_service_pb2.ReplicaEvent(bookmark=watch_pb2.Bookmark())
        await context.write(deployment_service_pb2.WatchReplicasResponse(events=[event]))


async def ended(watching: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(watching.communicate, timeout=60)
    return watching.returncode, out, err


async def test_on_a_terminal_it_says_so_and_ctrl_c_leaves_what_was_last_seen() -> None:
    async with watched_at_a_terminal("brief") as (terminal, _):
        left = await interrupted(terminal)
    assert re.search("brief-0.*demo-0.*demo-1.*demo-2.*" + LOST, left, re.DOTALL)


async def test_on_a_terminal_what_was_deleted_meanwhile_is_gone_once_somebody_answers_again() -> None:
    async with watched_at_a_terminal("brief") as (terminal, port), scripted_cluster(port) as (_, cluster, _):
        cluster.add(deployment("later", builtin="demo"))
        shown = await asyncio.to_thread(terminal.read_until, "later-0")
        left = await interrupted(terminal)
    assert "demo-0" in shown
    assert "later-0" in left
    assert "brief" not in left
    assert "does not answer" not in left


async def test_on_a_pipe_it_says_so_once_on_the_error_stream_and_goes_on() -> None:
    async with watched() as (watching, port):
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert re.fullmatch(LOST + "\n", await asyncio.to_thread(watching.stderr.readline))
        async with scripted_cluster(port) as (_, cluster, _):
            cluster.add(deployment("later", builtin="demo"))
            while "later-0" not in await asyncio.to_thread(watching.stdout.readline):
                assert watching.poll() is None
            watching.send_signal(signal.SIGINT)
            status, _, err = await ended(watching)
    assert (status, err.strip()) == (130, "")


async def test_json_ends_with_an_error_and_is_json_to_the_last_line() -> None:
    async with watched("--json") as (watching, _):
        status, out, err = await ended(watching)
    assert status == 3
    assert [json.loads(line) for line in out.splitlines()] == []
    [line] = err.splitlines()
    assert "does not answer" in line


async def test_a_server_that_ends_the_watch_is_no_success() -> None:
    service = Service(deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"], Ending())
    async with serve(Listen("127.0.0.1", 0), [service], grace_s=0) as serving:
        left = await asyncio.to_thread(Cli(serving.address), "replicas", "--watch", "--json")
    assert (left.status, len(left.out.splitlines())) == (1, 1)
    assert left.err == f"roundhouse: {serving.address} ended the watch: begin it anew\n"
