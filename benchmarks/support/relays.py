"""What stands between clients and the token source: nothing, our gateway, or Envoy, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.environments import python_of
from benchmarks.support.fleet_child import ChildFailed, on_cores, wait_or_kill
from benchmarks.support.paths import ROOT

START_S = 30.0
STOP_S = 10.0
_MOST = 1 << 20  # streams, requests and connections; Envoy's own limits are 1,024 and less
_STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES = 1 << 20, 1 << 24
_TYPE = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the source."""

    name: str
    address: str
    pid: int | None = None  # of the relay; None if there is none


@contextlib.asynccontextmanager
async def gateway(
    source: str, cores: Collection[int], folder: Path, *, name: str = "gateway", profile: Path | None = None
) -> AsyncIterator[Way]:
    """Runs a gateway for the block.

    source: what tells it its routes. profile: where its functions are counted, by cProfile, which makes it slow.
    """
    address = folder / f"{name}.address"
    address.unlink(missing_ok=True)
    arguments = ["controlplane", "--role", "gateway", "--control-plane", source, "--listen", "127.0.0.1:0"]
    arguments += ["--address-file", str(address)]
    profiled = [] if profile is None else ["-m", "cProfile", "-o", str(profile)]
    command = [sys.executable, *profiled, "-m", *arguments]
    async with running(name, command, cores, folder, address.exists) as process:
        yield Way(name, address.read_text(encoding="utf-8").strip(), process.pid)


@contextlib.asynccontextmanager
async def envoy(source: str, cores: Collection[int], folder: Path) -> AsyncIterator[Way]:
    """Runs Envoy for the block, with one thread that relays, and with limits that are none."""
    binary = next(python_of("envoy", ROOT, has_torch=False).parent.parent.glob("lib/*/site-packages/envoy/_bin/envoy"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, source)), encoding="utf-8")
    command = [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    async with running("envoy", command, cores, folder, lambda: _answers(port)) as process:
        yield Way("envoy", f"127.0.0.1:{port}", process.pid)


def envoy_config(port: int, source: str) -> dict[str, object]:
    """Returns what makes Envoy pass on all calls to the source over HTTP/2."""
    http2 = {
        "max_concurrent_streams": _MOST,
        "initial_stream_window_size": _STREAM_WINDOW_BYTES,
        "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "source", "timeout": "0s"}}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "HTTP2",
        "stat_prefix": "relay",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": http2,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _MOST)
    host, _, source_port = source.rpartition(":")
    endpoint = {"endpoint": {"address": _socket_address(host, int(source_port))}}
    cluster = {
        "name": "source",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
        "load_assignment": {"cluster_name": "source", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {
        "name": "clients",
        "address": _socket_address("127.0.0.1", port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _socket_address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.asynccontextmanager
async def running(
    name: str, command: Sequence[str], cores: Collection[int], folder: Path, is_up: Callable[[], bool]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a program for the block, on some cores. is_up: tells when it can be used."""
    log = folder / f"{name}.log"
    with log.open("wb") as stderr, on_cores(cores):
        process = await asyncio.create_subprocess_exec(*command, stdout=stderr, stderr=stderr, cwd=ROOT)
    try:
        async with asyncio.timeout(START_S):
            while not is_up():
                if process.returncode is not None:
                    raise ChildFailed(f"the {name} does not start ({log})")
                await asyncio.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await wait_or_kill(process, STOP_S)
