"""A bundle becomes a configuration: its own word first, then the environment's, then the default of the device."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from engines.config import Builtin, Config, read_config
from roundhouse.internal.v1 import engine_spec_pb2
from roundhouse.kit.errors import Usage

KEY = bytes(range(32))


def write(folder: Path, **fields: Any) -> Path:
    bundle = {
        "engineUuid": "e",
        "replica": "deployments/chat/replicas/0",
        "replicaUid": "r",
        "deploymentGeneration": "4",
        "device": "cpu",
        "listenHost": "127.0.0.1",
        "spec": {"deployment": "chat", "model": {"builtin": "demo"}},
        **fields,
    }
    (folder / "spec.json").write_text(json.dumps(bundle))
    (folder / "key").write_bytes(KEY)
    return folder


def configured(folder: Path, environ: Mapping[str, str] | None = None, **fields: Any) -> Config:
    return read_config(write(folder, **fields), environ or {})


def spec(**fields: Any) -> dict[str, Any]:
    return {"deployment": "chat", "model": {"builtin": "demo"}, **fields}


def test_a_bundle_is_read_as_the_agent_writes_it(tmp_path: Path) -> None:
    bundle = engine_spec_pb2.EngineBundle(
        engine_uuid="e",
        replica="deployments/chat/replicas/0",
        replica_uid="r",
        deployment_generation=4,
        device="cuda",
        listen_host="127.0.0.1",
        lowest_port=7000,
        highest_port=7002,
    )
    bundle.spec.deployment = "chat"
    bundle.spec.engine = "torch"
    bundle.spec.model.path = "/models/llama"
    bundle.spec.options.max_model_len = 4096
    bundle.spec.options.kv_cache_memory_bytes = 1 << 33
    (tmp_path / "spec.json").write_text(json_format.MessageToJson(bundle))
    (tmp_path / "key").write_bytes(KEY)
    config = read_config(tmp_path, {})
    assert (config.engine_uuid, config.engine_key, config.deployment) == ("e", KEY, "chat")
    assert (config.model, config.device) == (Path("/models/llama"), "cuda")
    assert list(config.ports) == [7000, 7001, 7002]
    assert (config.options.max_model_len, config.options.kv_cache_bytes) == (4096, 1 << 33)
    assert str(KEY) not in repr(config)


def test_defaults_are_those_of_the_device(tmp_path: Path) -> None:
    cpu, cuda = configured(tmp_path), configured(tmp_path, device="cuda")
    assert (cpu.options.batch_size, cpu.options.max_batched_tokens) == (32, 512)
    assert (cuda.options.batch_size, cuda.options.max_batched_tokens) == (256, 8192)
    assert (cpu.options.batch_interval_s, cpu.options.block_size, cpu.options.dtype) == (0.0, 16, "auto")
    assert (cpu.options.max_waiting, cpu.options.max_model_len) == (1024, None)
    assert (cpu.model, list(cpu.ports)) == (Builtin("demo"), [0])


@pytest.mark.parametrize(
    ("options", "environ", "batch_size", "interval_s"),
    [
        pytest.param({}, {"XINFERENCE_BATCH_SIZE": "5", "XINFERENCE_BATCH_INTERVAL": "0.5"}, 5, 0.5, id="Xinference's"),
        pytest.param({}, {"ROUNDHOUSE_BATCH_SIZE": "6", "XINFERENCE_BATCH_SIZE": "5"}, 6, 0.0, id="ours before theirs"),
        pytest.param(
            {"batchSize": 7, "batchInterval": "0s"},
            {"ROUNDHOUSE_BATCH_SIZE": "6", "ROUNDHOUSE_BATCH_INTERVAL": "1"},
            7,
            0.0,
            id="the bundle before both",
        ),
        pytest.param({}, {"ROUNDHOUSE_BATCH_SIZE": ""}, 32, 0.0, id="an empty one is none"),
    ],
)
def test_the_bundle_goes_before_the_environment(
    tmp_path: Path, options: Any, environ: dict[str, str], batch_size: int, interval_s: float
) -> None:
    config = configured(tmp_path, environ, spec=spec(options=options))
    assert (config.options.batch_size, config.options.batch_interval_s) == (batch_size, interval_s)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROUNDHOUSE_BATCH_SIZE", "0"),
        ("ROUNDHOUSE_BATCH_SIZE", "4097"),
        ("XINFERENCE_BATCH_SIZE", "many"),
        ("ROUNDHOUSE_BATCH_INTERVAL", "-1"),
        ("ROUNDHOUSE_BATCH_INTERVAL", "nan"),
        ("XINFERENCE_BATCH_INTERVAL", "soon"),
    ],
)
def test_a_variable_out_of_range_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(Usage, match=variable):
        configured(tmp_path, {variable: value})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        pytest.param({"engineUuid": ""}, "engine_uuid", id="no uuid"),
        pytest.param({"listenHost": ""}, "listen_host", id="no host"),
        pytest.param({"spec": {"model": {"builtin": "demo"}}}, "deployment", id="no deployment"),
        pytest.param({"spec": {"deployment": "chat"}}, "model", id="no model"),
        pytest.param({"device": "tpu"}, "tpu", id="an unknown device"),
        pytest.param({"spec": spec(engine="vllm")}, "vllm", id="an unknown engine type"),
        pytest.param({"device": 7}, "spec.json", id="another type"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(tmp_path: Path, fields: Any, wrong: str) -> None:
    with pytest.raises(Usage, match=wrong):
        configured(tmp_path, **fields)


def test_a_field_of_a_newer_agent_is_passed_over(tmp_path: Path) -> None:
    assert configured(tmp_path, newField=1).engine_uuid == "e"


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Usage, match=r"spec\.json"):
        read_config(tmp_path, {})
    write(tmp_path)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(Usage, match="key holds 5 bytes"):
        read_config(tmp_path, {})
    (tmp_path / "spec.json").write_bytes(b"\xff{")
    with pytest.raises(Usage, match=r"spec\.json"):
        read_config(tmp_path, {})
