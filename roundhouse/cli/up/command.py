"""`roundhouse up`: starts a cluster here, launches the demo model, and serves until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import click
from rich.text import Text

from roundhouse.cli.exits import DONE, INTERRUPTED
from roundhouse.cli.session import asynchronous, json_option
from roundhouse.cli.units import count_of, format_age
from roundhouse.cli.up.cluster import DRAIN_GRACE_S, Cluster, Settings, running
from roundhouse.cli.up.demo import DEMO, launch_demo
from roundhouse.cli.up.story import Story
from roundhouse.cli.up.tour import tour
from roundhouse.cli.up.ways import ways_on
from roundhouse.kit.logs import LEVELS, Level
from roundhouse.kit.units import format_bytes
from roundhouse.v1 import node_pb2


@click.command(short_help="Starts a cluster here, with the demo model, until Ctrl-C.")
@click.option(
    "--port", metavar="PORT", type=click.IntRange(0, 65535), default=50050, help="Default 50050; 0 takes any."
)
@click.option(
    "--state-dir", metavar="DIR", type=Path, help="Where the cluster is kept; default ~/.local/state/roundhouse."
)
@click.option("--simulate-gpus", metavar="2x24GiB", help="Pretend to have GPUs; the default where there are none.")
@click.option("--no-demo", is_flag=True, help="Launch nothing.")
@click.option("--replicas", "replica_count", metavar="N", type=click.IntRange(1), help="Of the demo; default 3.")
@click.option(
    "--gpu-count", metavar="N", type=click.IntRange(1), help="Distinct GPUs for the demo; default 2, if there are."
)
@click.option("--tour", "is_tour", is_flag=True, help="Show an answer and a cancelled request.")
@click.option("--once", is_flag=True, help="End after that instead of serving on.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="warning", help="Of the files in DIR/logs; default warning."
)
@json_option
@asynchronous
async def up(
    port: int,
    state_dir: Path | None,
    simulate_gpus: str | None,
    no_demo: bool,
    replica_count: int | None,
    gpu_count: int | None,
    is_tour: bool,
    once: bool,
    log_level: Level,
    as_json: bool,
) -> int:
    """Starts a control plane and a node agent here, launches the demo model, and serves until Ctrl-C.

    Ctrl-C drains and stops the engines. Deployments stay in the state directory: the next `up` runs them again.
    """
    if is_tour and no_demo:
        raise click.UsageError("--tour needs the demo: leave out --no-demo")
    settings = Settings(port, (state_dir or _default_state_dir(os.environ)).absolute(), simulate_gpus, log_level)
    story, is_serving = Story(as_json=as_json), False
    signals = _Signals(story)
    try:
        async with _told(story, settings, signals) as cluster:
            _introduce(story, cluster)
            if not no_demo:
                await launch_demo(story, cluster.client, replica_count, gpu_count)
            if is_tour:
                await tour(story, cluster.client, DEMO)
            if not once:
                if not no_demo:
                    story.tell("ways", ways_on(cluster.address))
                story.tell("serving", f"serving at {cluster.address} until Ctrl-C", address=cluster.address)
                is_serving = True
                await asyncio.Event().wait()
    except asyncio.CancelledError:
        return DONE if is_serving else INTERRUPTED
    return DONE


@contextlib.asynccontextmanager
async def _told(story: Story, settings: Settings, signals: _Signals) -> AsyncIterator[Cluster]:
    """Runs a cluster for the block, and tells of its end if it ever began."""
    is_up = False
    try:
        async with running(settings, story.warn) as cluster:
            is_up = True
            try:
                yield cluster
            finally:
                signals.begin_end()
                limit = format_age(DRAIN_GRACE_S)
                story.tell("stopping", Text(f"\ndraining and stopping, {limit} at most for requests", style="dim"))
    finally:
        if is_up:
            story.tell("stopped", Text(f"stopped; what was deployed is kept in {settings.state_dir}", style="dim"))


def _introduce(story: Story, cluster: Cluster) -> None:
    node, plane, agent = cluster.node, cluster.control_plane, cluster.agent
    gpus = "no GPU, so engines compute on the processors"
    failed = next((each for each in node.gpus if each.state == node_pb2.GPU_STATE_FAILED), None)
    if failed is not None:
        gpus = f"GPU {failed.index} cannot be used: {failed.state_message}"
    elif node.gpus:
        kind = "simulated GPU" if node.gpus[0].is_simulated else node.gpus[0].product_name
        gpus = f"{count_of(len(node.gpus), kind)} of {format_bytes(node.gpus[0].total_memory_bytes)}"
    story.step("control plane", "control plane", cluster.address, f"pid {plane.pid}", address=cluster.address)
    story.step("node agent", "node agent", node.name.removeprefix("nodes/"), f"pid {agent.pid}, {gpus}", node=node.name)


class _Signals:
    """Lets the first signal cancel this task. During an end, whoever began it, they are noted and change nothing.

    An end that is cut short leaves engines, and it lasts no longer than its grace periods.
    """

    def __init__(self, story: Story) -> None:
        self._story = story
        self._is_ending = False
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(each, self._take)

    def begin_end(self) -> None:
        """Says that the end has begun."""
        self._is_ending = True

    def _take(self) -> None:
        if self._is_ending:
            self._story.warn("ending already; cut short, it would leave engines running")
        else:
            self._is_ending = True
            self._task.cancel()


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "roundhouse"
