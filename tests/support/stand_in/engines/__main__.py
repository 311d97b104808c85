"""A real process that speaks the handshake and `EngineService`, computes nothing, and misbehaves as SCRIPT says.

SCRIPT, a variable of its environment, holds words:
    exit=N     write two lines to stderr and exit with status N before it listens
    silent     never listen
    loading    stay LOADING until SIGUSR2
    stranger   prove to be another engine
    deaf       ignore SIGTERM
    hangup     end every stream of status, the first after one message, and say so when asked
    busy       never finish draining
    parent     start a child that ignores SIGTERM, and write its pid to the file `child`
SIGUSR1 makes it write to stderr and exit with status 37. Each Drain leaves its grace in the file `drained`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from roundhouse.internal.v1 import engine_service_pb2, engine_spec_pb2, hop_pb2
from roundhouse.kit.errors import Unauthenticated, Unreachable
from roundhouse.kit.files import write_atomically
from roundhouse.kit.metadata import metadata_value
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.times import from_duration
from roundhouse.v1 import deployment_pb2, errors_pb2


class ScriptedEngine:
    """Methods as in `engine_service.proto`."""

    def __init__(self, bundle: Path, script: list[str]) -> None:
        self._bundle, self._script = bundle, script
        self.spec = json_format.Parse((bundle / "spec.json").read_text(), engine_spec_pb2.EngineBundle())
        self._key = (bundle / "key").read_bytes()
        self._watch_count = 0
        self.loaded = asyncio.Event()
        self.draining = asyncio.Event()

    def engine_uuid(self) -> str:
        return "another" if "stranger" in self._script else self.spec.engine_uuid

    async def Describe(self, request: Any, context: Any) -> engine_service_pb2.DescribeResponse:
        self._verify(context)
        status = self._status()
        if "hangup" in self._script and self._watch_count > 0:
            status.message += ", when asked"
        return engine_service_pb2.DescribeResponse(
            engine_uuid=self.engine_uuid(),
            replica=self.spec.replica,
            replica_uid=self.spec.replica_uid,
            pid=os.getpid(),
            status=status,
            fingerprint="scripted" if self.loaded.is_set() else "",
            package_versions={name: __import__(name).VERSION for name in self._asked()},
        )

    async def Watch(self, request: engine_service_pb2.WatchRequest, context: Any) -> None:
        self._verify(context)
        while True:
            if "hangup" in self._script and self._watch_count > 0:
                return
            self._watch_count += 1
            await context.write(engine_service_pb2.WatchResponse(statuses=[self._status()]))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(from_duration(request.period)):
                    await self._next_change().wait()

    async def Drain(self, request: engine_service_pb2.DrainRequest, context: Any) -> engine_service_pb2.DrainResponse:
        self._verify(context)
        self.draining.set()
        write_atomically(self._bundle / "drained", str(from_duration(request.grace)).encode())
        if "busy" in self._script:
            await asyncio.sleep(from_duration(request.grace))
        return engine_service_pb2.DrainResponse()

    def _next_change(self) -> asyncio.Event:
        if self.draining.is_set():
            return asyncio.Event()  # there is none any more
        return self.draining if self.loaded.is_set() else self.loaded

    def _status(self) -> engine_service_pb2.EngineStatus:
        if self.draining.is_set():
            return engine_service_pb2.EngineStatus(state=engine_service_pb2.ENGINE_STATE_DRAINING, message="draining")
        if not self.loaded.is_set():
            return engine_service_pb2.EngineStatus(
                state=engine_service_pb2.ENGINE_STATE_LOADING,
                message="loading",
                progress=deployment_pb2.LaunchProgress(
                    stage=deployment_pb2.LAUNCH_STAGE_LOADING_WEIGHTS, done_bytes=1, total_bytes=4, fraction=0.25
                ),
            )
        load = deployment_pb2.EngineLoad(running_count=3, total_block_count=64, busy_fraction=0.5)
        return engine_service_pb2.EngineStatus(
            state=engine_service_pb2.ENGINE_STATE_SERVING, message="serving", load=load
        )

    def _asked(self) -> list[str]:
        return [each.partition("==")[0] for each in self.spec.spec.virtual_env.packages]

    def _verify(self, context: Any) -> None:
        packed = metadata_value(context.invocation_metadata(), "roundhouse-hop-bin")
        hop = hop_pb2.Hop.FromString(packed if isinstance(packed, bytes) else b"")
        if hop.engine_uuid != self.engine_uuid():
            raise Unreachable("another engine is meant", reason=errors_pb2.ERROR_REASON_WRONG_ENGINE)
        if hop.engine_key != self._key:
            raise Unauthenticated("the key is wrong")


async def run(bundle: Path, script: list[str]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if "deaf" in script else stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: die(37))
    engine = ScriptedEngine(bundle, script)
    loop.add_signal_handler(signal.SIGUSR2, engine.loaded.set)
    if "loading" not in script:
        engine.loaded.set()
    if "silent" in script:
        await stop.wait()
        return
    service = Service(engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"], engine)
    listen = Listen(engine.spec.listen_host, engine.spec.lowest_port)
    async with serve(listen, [service], grace_s=0.1) as serving:
        write_ready(engine.spec.engine_uuid, serving.address, bundle)
        await stop.wait()


def write_ready(engine_uuid: str, address: str, bundle: Path) -> None:
    ready = engine_spec_pb2.EngineReady(
        address=address,
        pid=os.getpid(),
        process_start_ticks=int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        engine_uuid=engine_uuid,
    )
    write_atomically(bundle / "ready.json", json_format.MessageToJson(ready).encode())


def start_child(bundle: Path) -> None:
    command = ["sh", "-c", "trap '' TERM; echo $$ > $0.new; mv $0.new $0; while :; do sleep 1000; done"]
    child = subprocess.Popen([*command, str(bundle / "child")])
    child.returncode = 0  # it is left behind


def die(status: int) -> None:
    print("first line\nlast words", file=sys.stderr, flush=True)
    os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    script = os.environ.get("SCRIPT", "").split()
    for word in script:
        if word.startswith("exit="):
            die(int(word.removeprefix("exit=")))
    bundle = parser.parse_args().bundle
    if "parent" in script:
        start_child(bundle)
    asyncio.run(run(bundle, script))


if __name__ == "__main__":
    main()
