"""What an engine is started with: its bundle, completed from the environment and by the defaults of the device.

Of settings, those that the deployment states hold; then the environment's, in which the deployment's variables stand
before those of the agent; then what the control plane computed; then the device's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from google.protobuf import json_format

from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.config import setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.times import from_duration
from roundhouse.kit.units import format_bytes
from roundhouse.options.engine_options import FITTED, overlaid, violations
from roundhouse.options.engine_variables import options_in
from roundhouse.v1 import deployment_pb2

Device = Literal["cpu", "cuda"]

SPEC_FILE, KEY_FILE, READY_FILE = "spec.json", "key", "ready.json"
BATCH_SIZE: Mapping[Device, int] = {"cpu": 32, "cuda": 256}
MAX_BATCHED_TOKENS: Mapping[Device, int] = {"cpu": 512, "cuda": 8192}
BLOCK_SIZE = 16
MAX_WAITING = 1024
KV_CACHE_BYTES = 1 << 30  # the control plane computes what is needed, up to this; alone, an engine takes all of it
GUESSES = 4
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # with which a requirement begins


@dataclass(frozen=True, slots=True)
class Builtin:
    """A model that ships with Roundhouse."""

    name: str


@dataclass(frozen=True, slots=True)
class Speculation:
    """How tokens are guessed ahead."""

    most: int  # tokens at a time
    draft_model: Path | Builtin | None = None  # guesses; if None, what came before does
    draft_cache_bytes: int | None = None  # a share of the other cache's if None


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
    shares_prefixes: bool
    attention: str
    is_compiled: bool
    quantization: str
    speculation: Speculation | None
    enable_thinking: bool | None = None  # what the chat template is told; it decides if None


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
    chat_template: str = ""  # in place of that of the model's files, if the catalog has another
    packages: tuple[str, ...] = ()  # names of those that its environment was asked to have


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
        options=_options(_settings(spec.spec, environ), device, spec.spec.draft_kv_cache_memory_bytes or None),
        chat_template=spec.spec.chat_template,
        packages=_packages(spec.spec.virtual_env),
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


def _packages(asked: deployment_pb2.VirtualEnv) -> tuple[str, ...]:
    names = [_PACKAGE.match(each) for each in asked.packages]
    return tuple(dict.fromkeys(name[0] for name in names if name is not None))


def _settings(spec: engine_spec_pb2.EngineSpec, environ: Mapping[str, str]) -> deployment_pb2.EngineOptions:
    """Returns what was set, whoever set it; raises Usage for what cannot be."""
    for wrong in violations(spec.options):
        raise Usage(f"the bundle's {wrong.field}: {wrong.description}")
    settings = overlaid(overlaid(spec.computed, options_in(environ)), spec.options)
    for stated, fitted in FITTED.items():
        if getattr(settings, fitted):
            _check_fitted(spec, environ, stated, fitted)
            setattr(settings, stated, getattr(spec.computed, stated))
    _check_reserved(spec, environ, settings.kv_cache_memory_bytes)
    return settings


def _check_fitted(spec: engine_spec_pb2.EngineSpec, environ: Mapping[str, str], stated: str, fitted: str) -> None:
    """Raises Usage for a setting that is to be fitted and was not: only what the control plane is told can be."""
    if getattr(spec.options, fitted):
        if not spec.computed.HasField(stated):
            raise Usage(f"the bundle's {fitted} was not computed: state {stated}")
        return
    found = setting(environ, stated.removesuffix("_bytes").upper())
    name = fitted if found is None else found[0]
    if name not in {each.name for each in spec.env} or not spec.computed.HasField(stated):
        raise Usage(f"{name} is auto, which only a deployment can ask for: set it there, or to a number")


def _check_reserved(spec: engine_spec_pb2.EngineSpec, environ: Mapping[str, str], asked_bytes: int) -> None:
    """Raises Usage if the agent's environment asks for more cache than was reserved when the engine was placed."""
    found = setting(environ, "KV_CACHE_MEMORY")
    reserved = spec.computed
    if found is None or spec.options.HasField("kv_cache_memory_bytes") or found[0] in {each.name for each in spec.env}:
        return
    if reserved.HasField("kv_cache_memory_bytes") and asked_bytes > reserved.kv_cache_memory_bytes:
        raise Usage(
            f"{found[0]} is {found[1]}, and only {format_bytes(reserved.kv_cache_memory_bytes)} are reserved: "
            "set it in the deployment, which is placed by it"
        )


def _options(settings: deployment_pb2.EngineOptions, device: Device, draft_cache_bytes: int | None) -> Options:
    """Fills in the defaults."""
    return Options(
        batch_size=settings.batch_size or BATCH_SIZE[device],
        batch_interval_s=from_duration(settings.batch_interval),
        max_batched_tokens=settings.max_num_batched_tokens or MAX_BATCHED_TOKENS[device],
        block_size=settings.block_size or BLOCK_SIZE,
        dtype=settings.dtype or "auto",
        max_waiting=settings.max_waiting or MAX_WAITING,
        kv_cache_bytes=settings.kv_cache_memory_bytes or KV_CACHE_BYTES,
        max_model_len=settings.max_model_len or None,
        shares_prefixes=not settings.HasField("enable_prefix_caching") or settings.enable_prefix_caching,
        attention=settings.attention or "auto",
        is_compiled=settings.compile,
        quantization=settings.quantization or "none",
        speculation=_speculation(settings.speculation, draft_cache_bytes),
        enable_thinking=settings.enable_thinking if settings.HasField("enable_thinking") else None,
    )


def _speculation(asked: deployment_pb2.Speculation, draft_cache_bytes: int | None) -> Speculation | None:
    most = asked.token_count or GUESSES
    if asked.method == deployment_pb2.SPECULATION_METHOD_NGRAM:
        return Speculation(most)
    if asked.method == deployment_pb2.SPECULATION_METHOD_DRAFT_MODEL:
        if asked.draft_model.WhichOneof("source") is None:
            raise Usage(
                "speculation by a draft model names none: set speculation.draft_model or ROUNDHOUSE_DRAFT_MODEL"
            )
        return Speculation(most, _model(asked.draft_model), draft_cache_bytes)
    return None
