"""Faults and users: what happens to a cluster in `tests/e2e/test_chaos.py`. One seed gives one schedule of faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roundhouse.client import Client, deployment
from roundhouse.kit.errors import AlreadyExists, NotFound, NotReady, RoundhouseError
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, RolloutPolicy
from tests.support.cluster import Cluster, engine_pids
from tests.support.full_disk import fill, free
from tests.support.tcp_proxy import TcpProxy

MOST_REPLICAS = 4  # on two cores
LONGEST_FAULT_S = 9.0  # longer than a lease
REQUEST_S = 20.0
SLACK_S = 10.0  # two cores, and the process of the test itself may wait for one
PROMPT = "Once upon a time"


@dataclass
class Truth:
    """What was acknowledged, and what was seen."""

    counts: dict[str, int] = field(default_factory=dict)  # replicas of each deployment
    batch_sizes: dict[str, int] = field(default_factory=dict)  # of the deployments that were updated
    killed_uids: set[str] = field(default_factory=set)  # replicas of which an engine was killed
    died_uids: set[str] = field(default_factory=set)  # and those of which one that served ended on a full disk
    full_s: list[tuple[float, float]] = field(default_factory=list)  # when a disk was full, since 1970
    did: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)  # of requests
    wrong: list[str] = field(default_factory=list)  # promises that were broken
    text: str = ""  # what everybody gets for PROMPT

    def may_have_died(self, replica: deployment_pb2.Replica) -> bool:
        """Tells whether an engine of a replica had a reason to end: it was killed, or began where there was no room."""
        died_s = replica.last_exit.exit_time.ToNanoseconds() / 1e9
        began_without_room = replica.uid not in self.died_uids and any(
            begin_s <= died_s <= end_s + SLACK_S for begin_s, end_s in self.full_s
        )
        return replica.uid in self.killed_uids or began_without_room


class Faults:
    """Breaks one thing at a time and mends it again."""

    def __init__(
        self,
        it: Cluster,
        proxies: Mapping[str, TcpProxy],
        truth: Truth,
        restart_agent: Callable[[str], None],
        seed: str,
        disks: Mapping[str, Path],
    ) -> None:
        """Knows what it may break: processes, connections, and the disks of processes that have their own."""
        self._it, self._proxies, self._truth, self._restart_agent = it, proxies, truth, restart_agent
        self._random = random.Random(seed)
        self._disks = disks

    async def run(self, seconds: float) -> None:
        """Breaks things for so long."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        faults: list[Callable[[], Awaitable[None]]] = [
            self._kill_control_plane,
            self._kill_agent,
            self._kill_engine,
            self._stop_some_process,
            self._cut,
            self._delay,
            *([self._fill_disk] if self._disks else []),
        ]
        while loop.time() < end_s:
            fault = self._random.choice(faults)
            self._truth.did[fault.__name__.strip("_")] += 1
            await fault()
            await asyncio.sleep(self._random.uniform(0.5, 4.0))

    async def _kill_control_plane(self) -> None:
        down_s = self._random.uniform(0.0, LONGEST_FAULT_S)
        self._it.kill("controlplane")
        await asyncio.sleep(down_s)
        await self._it.start_control_plane()

    async def _kill_agent(self) -> None:
        name, down_s = self._agent(), self._random.uniform(0.0, LONGEST_FAULT_S)
        self._it.kill(name)
        await asyncio.sleep(down_s)
        self._restart_agent(name)

    async def _kill_engine(self) -> None:
        pid = self._engine()
        if pid is not None:
            self._signal(pid, signal.SIGKILL)

    async def _stop_some_process(self) -> None:
        kind, held_s = self._random.randrange(3), self._random.uniform(0.5, LONGEST_FAULT_S)
        pid = [self._it.processes["controlplane"].pid, self._it.processes[self._agent()].pid, self._engine()][kind]
        if pid is not None:
            self._signal(pid, signal.SIGSTOP)
            await asyncio.sleep(held_s)
            self._signal(pid, signal.SIGCONT)

    async def _cut(self) -> None:
        proxy, held_s = self._proxies[self._agent()], self._random.uniform(0.5, LONGEST_FAULT_S)
        proxy.cut()
        await asyncio.sleep(held_s)
        proxy.mend()

    async def _delay(self) -> None:
        proxy, held_s = self._proxies[self._agent()], self._random.uniform(1.0, LONGEST_FAULT_S)
        proxy.delay_s = self._random.uniform(0.05, 1.0)
        await asyncio.sleep(held_s)
        proxy.mend()

    async def _fill_disk(self) -> None:
        """Takes all room on the disk of a process, which may be killed with what it has half written."""
        name, held_s = self._random.choice(sorted(self._disks)), self._random.uniform(0.5, LONGEST_FAULT_S)
        is_killed = self._random.random() < 0.5
        begin_s, served = time.time(), serving(self._disks[name])
        fill(self._disks[name])
        await asyncio.sleep(held_s)
        if is_killed:
            self._it.kill(name)
        free(self._disks[name])
        self._truth.full_s.append((begin_s, time.time()))
        self._truth.died_uids |= served - serving(self._disks[name])
        if is_killed and name == "controlplane":
            await self._it.start_control_plane()
        elif is_killed:
            self._restart_agent(name)

    def _agent(self) -> str:
        return self._random.choice(sorted(self._proxies))

    def _engine(self) -> int | None:
        luck = self._random.random()  # drawn whatever there is, so that the schedule does not hang on it
        pids = engine_pids(self._it.folder)
        return sorted(pids)[int(luck * len(pids))] if pids else None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        if number is signal.SIGKILL:
            self._truth.killed_uids.add(replica_uid(pid))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Users:
    """Create, scale and delete deployments, and use them. What is acknowledged is the truth from then on."""

    def __init__(self, client: Client, truth: Truth, seed: str) -> None:
        self._client, self._truth = client, truth
        self._random = random.Random(f"users of {seed}")
        self._made = 0
        self._leaving = asyncio.Event()

    async def change(self) -> None:
        """Changes what is wanted until `leave`; ends with the last change acknowledged."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(2.0, 10.0)):
                    await self._leaving.wait()
            if self._leaving.is_set():
                return
            await self._one_change()

    def leave(self) -> None:
        """Lets nothing more be changed."""
        self._leaving.set()

    async def ask(self) -> None:
        """Sends one request after the other until cancelled."""
        while True:
            names = [name for name, count in self._truth.counts.items() if count]
            if not names:
                await asyncio.sleep(0.2)
                continue
            await self._request(self._random.choice(names), self._random.choice((8, 64, 400)))

    async def _one_change(self) -> None:
        counts, room = self._truth.counts, MOST_REPLICAS - sum(self._truth.counts.values())
        # What else may be done to a deployment is one more line, with its method.
        kinds: Mapping[str, tuple[int, Callable[[str, int], Awaitable[None]]]] = {
            "scale": (2, self._scale),
            "update": (2, self._update),
            "delete": (1, self._delete),
        }
        weights = {"create": 1, **{kind: weight for kind, (weight, _) in kinds.items()}} if counts else {"create": 1}
        [kind] = self._random.choices(list(weights), list(weights.values()))
        if kind in kinds:
            await kinds[kind][1](self._random.choice(sorted(counts)), room)
        elif room:
            await self._create(room)
        self._truth.did[kind] += 1

    async def _create(self, room: int) -> None:
        self._made += 1
        name, count = f"c{self._made}", self._random.randint(1, min(2, room))
        wanted = deployment(name, builtin="demo", replica_count=count)
        await self._until_acknowledged(
            lambda key: self._client.deployments.create(wanted, allow_pending=True, request_id=key)
        )
        self._truth.counts[name] = count

    async def _scale(self, name: str, room: int) -> None:
        count = self._random.randint(0, min(3, room + self._truth.counts[name]))
        await self._until_acknowledged(
            lambda key: self._client.deployments.scale(name, count, allow_pending=True, request_id=key)
        )
        self._truth.counts[name] = count

    async def _update(self, name: str, room: int) -> None:
        size = self._random.choice((4, 8, 16))
        # Without room for one more, one goes first.
        rollout = RolloutPolicy(max_surge=min(room, 1), max_unavailable=1 - min(room, 1))
        change = Deployment(name=f"deployments/{name}", engine_options=EngineOptions(batch_size=size), rollout=rollout)
        paths = ["engine_options.batch_size", "rollout"]
        await self._until_acknowledged(
            lambda key: self._client.deployments.update(change, paths, allow_pending=True, request_id=key)
        )
        self._truth.batch_sizes[name] = size

    async def _delete(self, name: str, room: int) -> None:
        self._truth.batch_sizes.pop(name, None)
        del self._truth.counts[name]  # before: nobody is to be surprised that it is going
        await self._until_acknowledged(
            lambda key: self._client.deployments.delete(name, drain_grace_s=1, request_id=key)
        )

    async def _until_acknowledged(self, call: Callable[[str], Awaitable[object]]) -> None:
        key = str(uuid.UUID(int=self._random.getrandbits(128)))
        while True:
            try:
                await call(key)
            except AlreadyExists as error:
                self._truth.wrong.append(f"a change that was repeated is refused: {error}")
                return
            except RoundhouseError:  # whether it was done is not known: the same again is the way to find out
                await asyncio.sleep(0.2)
            else:
                return

    async def _request(self, name: str, tokens: int) -> None:
        request = self._client.generate(
            name, PROMPT, max_tokens=tokens, ignore_eos=True, temperature=0, timeout_s=REQUEST_S
        )
        text, position = "", 0
        try:
            async with asyncio.timeout(REQUEST_S + SLACK_S):
                async for delta in request:
                    if delta.first_position != position:
                        self._truth.wrong.append(f"position {delta.first_position} came where {position} was due")
                    position += len(delta.token_ids)
                    text += delta.text
        except TimeoutError:
            self._truth.wrong.append(f"a request to {name} did not end {SLACK_S:g} s after its deadline")
        except NotFound:
            if self._truth.counts.get(name):
                self._truth.wrong.append(f"{name} was acknowledged, and is not found")
        except NotReady:
            self._truth.outcomes["not ready"] += 1
            await asyncio.sleep(0.2)
        except RoundhouseError as error:
            self._truth.outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.2)
        else:
            self._truth.outcomes["finished"] += 1
        self._compare(text)

    def _compare(self, text: str) -> None:
        """Whatever else happens, everybody gets the same text, as far as it comes."""
        known = self._truth.text
        if not (text.startswith(known) or known.startswith(text)):
            self._truth.wrong.append(f"for {PROMPT!r} came {text!r} where others get {known!r}")
        self._truth.text = max(known, text, key=len)


def serving(state_dir: Path) -> set[str]:
    """Returns the replicas of a node whose engines have come as far as to listen."""
    pids = engine_pids(state_dir)
    return {uid for uid in map(replica_uid, pids) if uid and (state_dir / "engines" / uid / "ready.json").exists()}


def replica_uid(pid: int) -> str:
    """Returns the replica that an engine process is of; empty if it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - no path of ours
        return os.path.basename(file.read().rstrip(b"\0").decode())  # noqa: PTH119
    return ""


async def differences(it: Cluster, client: Client, truth: Truth) -> list[str]:
    """Returns in what the cluster differs from what was acknowledged; nothing once it has come to rest."""
    found = []
    try:
        deployments = (await client.deployments.list()).deployments
        replicas = {
            each.name: (await client.replicas.list(each.name.removeprefix("deployments/"))).replicas
            for each in deployments
        }
    except RoundhouseError as error:
        return [f"the control plane does not answer: {error}"]
    wanted = {f"deployments/{name}": count for name, count in truth.counts.items()}
    if {each.name: each.replica_count for each in deployments} != wanted:
        found.append(f"deployments are {[each.name for each in deployments]}, wanted {wanted}")
    for each in deployments:
        rolled_out = next(one for one in each.conditions if one.type == "RolledOut")
        size = truth.batch_sizes.get(each.name.removeprefix("deployments/"))
        # A new version of which an engine was killed again and again is taken back, as it should be.
        is_wanted = size in (None, each.engine_options.batch_size) or rolled_out.reason == "RolledBack"
        if rolled_out.reason not in ("", "RolledBack") or not is_wanted:
            found.append(
                f"{each.name} has the batch_size {each.engine_options.batch_size}, wanted {size}: {rolled_out}"
            )
    for name, own in replicas.items():
        states = [deployment_pb2.ReplicaState.Name(each.state) for each in own]
        if states != ["REPLICA_STATE_READY"] * wanted.get(name, 0):
            found.append(f"{name} has {states}, wanted {wanted.get(name, 0)} READY: {[each.message for each in own]}")
        loads = [(each.name, each.load.total_block_count - each.load.free_block_count) for each in own]
        found += [f"{name} holds {count} blocks" for name, count in loads if count]
    pids = {each.engine_pid for own in replicas.values() for each in own}
    if set(engine_pids(it.folder)) != pids:
        found.append(f"engines are {sorted(engine_pids(it.folder))}, reported {sorted(pids)}")
    return found
