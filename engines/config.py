"""What an engine is started with: its bundle, completed from the environment and by the defaults of the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from google.protobuf import json_format

from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.config import setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.times import from_duration
from roundhouse.v1 import deployment_pb2

Device = Literal["cpu", "cuda"]

SPEC_FILE, KEY_FILE, READY_FILE = "spec.json", "key", "ready.json"
BATCH_SIZE: Mapping[Device, int] = {"cpu": 32, "cuda": 256}
MAX_BATCHED_TOKENS: Mapping[Device, int] = {"cpu": 512, "cuda": 8192}
BLOCK_SIZE = 16
MAX_WAITING = 1024
KV_CACHE_BYTES = 1 << 30  # the control plane computes what is needed, up to this; alone, an engine takes all of it


@dataclass(frozen=True, slots=True)
class Builtin:
    """A model that ships with Roundhouse."""

    name: str


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the engine, with defaults filled in."""

    batch_size: int
    batch_interval_s: float
    max_batched_tokens: int
    block_size: int
    dtype: str
    max_waiting: int
    kv_cache_bytes: int
    max_model_len: int | None  # the model's context if None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that one life of an engine is told."""

    bundle: Path
    engine_uuid: str
    engine_key: bytes = field(repr=False)
    replica: str
    replica_uid: str
    deployment: str
    deployment_generation: int
    model: Path | Builtin
    device: Device
    listen_host: str
    ports: range
    options: Options


def read_config(bundle: Path, environ: Mapping[str, str]) -> Config:
    """Reads the bundle directory; raises Usage if it is not whole, or if a variable is out of range."""
    spec = _read_spec(bundle / SPEC_FILE)
    device = _device(spec.device)
    if spec.spec.engine not in ("", "torch"):
        raise Usage(f'engine type "{spec.spec.engine}" is unknown here: use torch')
    return Config(
        bundle=bundle,
        engine_uuid=spec.engine_uuid,
        engine_key=_read_key(bundle / KEY_FILE),
        replica=spec.replica,
        replica_uid=spec.replica_uid,
        deployment=spec.spec.deployment,
        deployment_generation=spec.deployment_generation,
        model=_model(spec.spec.model),
        device=device,
        listen_host=spec.listen_host,
        ports=range(spec.lowest_port, max(spec.lowest_port, spec.highest_port) + 1),
        options=_options(spec.spec.options, device, environ),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(
            f"cannot read {path}: {error.strerror}: the node agent writes it before it starts an engine"
        ) from error


def _read_spec(path: Path) -> engine_spec_pb2.EngineBundle:
    content = _read(path)
    try:
        # An agent that is one version newer may say more than we know.
        spec = json_format.Parse(content, engine_spec_pb2.EngineBundle(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Usage(f"{path} is no engine bundle: {error}") from error
    for name in ("engine_uuid", "replica", "replica_uid", "listen_host"):
        if not getattr(spec, name):
            raise Usage(f"{path} lacks {name}")
    if not spec.spec.deployment:
        raise Usage(f"{path} lacks spec.deployment")
    return spec


def _read_key(path: Path) -> bytes:
    key = _read(path)
    if len(key) < 16:
        raise Usage(f"{path} holds {len(key)} bytes: a key has 32")
    return key


def _device(name: str) -> Device:
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        return "cuda"
    raise Usage(f'device "{name}" is unknown: use cpu or cuda')


def _model(source: deployment_pb2.ModelSource) -> Path | Builtin:
    if source.WhichOneof("source") is None:
        raise Usage("the bundle names no model: set spec.model")
    return Path(source.path) if source.path else Builtin(source.builtin)


def _options(options: deployment_pb2.EngineOptions, device: Device, environ: Mapping[str, str]) -> Options:
    """Fills in what the bundle leaves open: from the environment first, then by default."""
    return Options(
        batch_size=options.batch_size if options.HasField("batch_size") else _batch_size(environ, device),
        batch_interval_s=from_duration(options.batch_interval)
        if options.HasField("batch_interval")
        else _batch_interval_s(environ),
        max_batched_tokens=options.max_num_batched_tokens
        if options.HasField("max_num_batched_tokens")
        else MAX_BATCHED_TOKENS[device],
        block_size=options.block_size if options.HasField("block_size") else BLOCK_SIZE,
        dtype=options.dtype or "auto",
        max_waiting=options.max_waiting if options.HasField("max_waiting") else MAX_WAITING,
        kv_cache_bytes=options.kv_cache_memory_bytes if options.HasField("kv_cache_memory_bytes") else KV_CACHE_BYTES,
        max_model_len=options.max_model_len if options.HasField("max_model_len") else None,
    )


def _batch_size(environ: Mapping[str, str], device: Device) -> int:
    found = setting(environ, "BATCH_SIZE")
    if found is None:
        return BATCH_SIZE[device]
    variable, text = found
    if not (text.isdecimal() and 1 <= int(text) <= 4096):
        raise Usage(f'{variable} is "{text}": use a whole number in [1, 4096]')
    return int(text)


def _batch_interval_s(environ: Mapping[str, str]) -> float:
    found = setting(environ, "BATCH_INTERVAL")
    if found is None:
        return 0.0
    variable, text = found
    try:
        interval_s = float(text)
    except ValueError:
        interval_s = -1.0
    if not 0 <= interval_s <= 10:
        raise Usage(f'{variable} is "{text}": use seconds in [0, 10]')
    return interval_s
