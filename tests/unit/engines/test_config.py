"""A bundle becomes a configuration: its own word first, then the environment's, then the default of the device."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from engines.config import Builtin, Config, Speculation, read_config
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


def test_the_chat_template_of_a_family_comes_with_what_was_computed(tmp_path: Path) -> None:
    assert configured(tmp_path, spec=spec(chat_template="{{ messages }}")).chat_template == "{{ messages }}"
    assert configured(tmp_path).chat_template == ""


def test_the_packages_of_an_environment_are_known_by_their_names(tmp_path: Path) -> None:
    asked = ["transformers==5.16.1", "peft[test]>=0.15", "numpy", 'a.b-c; python_version >= "3.11"', "numpy<3"]
    told = spec(virtual_env={"packages": asked})
    assert configured(tmp_path, spec=told).packages == ("transformers", "peft", "numpy", "a.b-c")
    assert configured(tmp_path).packages == ()


def test_defaults_are_those_of_the_device(tmp_path: Path) -> None:
    cpu, cuda = configured(tmp_path), configured(tmp_path, device="cuda")
    assert (cpu.options.batch_size, cpu.options.max_batched_tokens) == (32, 512)
    assert (cuda.options.batch_size, cuda.options.max_batched_tokens) == (256, 8192)
    assert (cpu.options.batch_interval_s, cpu.options.block_size, cpu.options.dtype) == (0.0, 16, "auto")
    assert (cpu.options.max_waiting, cpu.options.max_model_len) == (1024, None)
    assert (cpu.options.shares_prefixes, cpu.options.attention, cpu.options.is_compiled) == (True, "auto", False)
    assert (cpu.options.quantization, cpu.options.speculation) == ("none", None)
    assert cpu.options.enable_thinking is None
    assert (cpu.model, list(cpu.ports)) == (Builtin("demo"), [0])


@pytest.mark.parametrize(
    ("bundle", "environ", "batch_size", "interval_s"),
    [
        pytest.param({}, {"XINFERENCE_BATCH_SIZE": "5", "XINFERENCE_BATCH_INTERVAL": "0.5"}, 5, 0.5, id="Xinference's"),
        pytest.param({}, {"ROUNDHOUSE_BATCH_SIZE": "6", "XINFERENCE_BATCH_SIZE": "5"}, 6, 0.0, id="ours before theirs"),
        pytest.param(
            {"options": {"batchSize": 7, "batchInterval": "0s"}},
            {"ROUNDHOUSE_BATCH_SIZE": "6", "ROUNDHOUSE_BATCH_INTERVAL": "1"},
            7,
            0.0,
            id="what is stated before both",
        ),
        pytest.param(
            {"computed": {"batchSize": 7, "batchInterval": "2s"}},
            {"ROUNDHOUSE_BATCH_SIZE": "6"},
            6,
            2.0,
            id="both before what is computed",
        ),
        pytest.param({}, {"ROUNDHOUSE_BATCH_SIZE": ""}, 32, 0.0, id="an empty one is none"),
    ],
)
def test_a_setting_goes_before_those_of_less_weight(
    tmp_path: Path, bundle: Any, environ: dict[str, str], batch_size: int, interval_s: float
) -> None:
    config = configured(tmp_path, environ, spec=spec(**bundle))
    assert (config.options.batch_size, config.options.batch_interval_s) == (batch_size, interval_s)


def test_every_setting_reaches_the_engine(tmp_path: Path) -> None:
    stated = {
        "maxModelLen": 64,
        "maxNumBatchedTokens": 32,
        "kvCacheMemoryBytes": "1024",
        "blockSize": 8,
        "dtype": "bfloat16",
        "maxWaiting": 3,
        "enablePrefixCaching": False,
        "attention": "torch",
        "compile": True,
        "quantization": "int8",
        "speculation": {"method": "SPECULATION_METHOD_DRAFT_MODEL", "draftModel": {"path": "/d"}, "tokenCount": 3},
        "enableThinking": False,
    }
    options = configured(tmp_path, spec=spec(options=stated)).options
    assert (options.max_model_len, options.max_batched_tokens, options.kv_cache_bytes) == (64, 32, 1024)
    assert (options.block_size, options.dtype, options.max_waiting) == (8, "bfloat16", 3)
    assert (options.shares_prefixes, options.attention, options.is_compiled) == (False, "torch", True)
    assert (options.quantization, options.speculation) == ("int8", Speculation(3, Path("/d")))
    assert options.enable_thinking is False


@pytest.mark.parametrize(
    ("method", "speculation"),
    [("off", None), ("ngram", Speculation(2)), ("draft_model", Speculation(2, Path("/d")))],
)
def test_tokens_are_guessed_ahead_as_the_environment_says(
    tmp_path: Path, method: str, speculation: Speculation | None
) -> None:
    environ = {"ROUNDHOUSE_SPECULATION_TOKENS": "2", "ROUNDHOUSE_DRAFT_MODEL": "/d"}
    assert configured(tmp_path, environ).options.speculation is None
    assert configured(tmp_path, {**environ, "ROUNDHOUSE_SPECULATION": method}).options.speculation == speculation


CACHE = "ROUNDHOUSE_KV_CACHE_MEMORY"


@pytest.mark.parametrize(
    ("bundle", "environ", "cache_bytes"),
    [
        pytest.param({}, {CACHE: "2GiB"}, 2 << 30, id="nothing is reserved"),
        pytest.param({"computed": {"kvCacheMemoryBytes": "1000"}}, {}, 1000, id="what is reserved"),
        pytest.param({"computed": {"kvCacheMemoryBytes": "1000"}}, {CACHE: "999"}, 999, id="less"),
        pytest.param({"computed": {"kvCacheMemoryBytes": "1000"}}, {CACHE: "1001"}, None, id="more"),
        pytest.param(
            {"computed": {"kvCacheMemoryBytes": "1000"}, "env": [{"name": CACHE, "value": "1001"}]},
            {CACHE: "1001"},
            1001,
            id="the deployment's, which was rounded to whole blocks",
        ),
        pytest.param(
            {"computed": {"kvCacheMemoryBytes": "1000"}, "options": {"kvCacheMemoryBytes": "1001"}},
            {CACHE: "5000"},
            1001,
            id="stated",
        ),
    ],
)
def test_the_agents_environment_cannot_take_more_cache_than_is_reserved(
    tmp_path: Path, bundle: Any, environ: dict[str, str], cache_bytes: int | None
) -> None:
    if cache_bytes is not None:
        assert configured(tmp_path, environ, spec=spec(**bundle)).options.kv_cache_bytes == cache_bytes
        return
    with pytest.raises(Usage, match=f"{CACHE} is 1001, and only 1000 B are reserved: set it in the deployment"):
        configured(tmp_path, environ, spec=spec(**bundle))


@pytest.mark.parametrize(
    ("bundle", "environ", "wrong"),
    [
        pytest.param({}, {"ROUNDHOUSE_BATCH_SIZE": "0"}, "ROUNDHOUSE_BATCH_SIZE", id="a variable"),
        pytest.param({}, {"XINFERENCE_BATCH_INTERVAL": "soon"}, "XINFERENCE_BATCH_INTERVAL", id="Xinference's"),
        pytest.param({"options": {"blockSize": 20}}, {}, "block_size", id="an option"),
        pytest.param({}, {"ROUNDHOUSE_SPECULATION": "draft_model"}, "ROUNDHOUSE_DRAFT_MODEL", id="no draft model"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    tmp_path: Path, bundle: Any, environ: dict[str, str], wrong: str
) -> None:
    with pytest.raises(Usage, match=wrong):
        configured(tmp_path, environ, spec=spec(**bundle))


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


COMPUTED = {"max_model_len": 512, "kv_cache_memory_bytes": "1048576"}
AUTO = {"ROUNDHOUSE_MAX_MODEL_LEN": "auto", "ROUNDHOUSE_KV_CACHE_MEMORY": "auto"}


@pytest.mark.parametrize(
    ("environ", "fields"),
    [
        ({}, {"options": {"fit_max_model_len": True, "fit_kv_cache_memory": True}}),
        (AUTO, {"env": [{"name": name, "value": value} for name, value in AUTO.items()]}),
        ({"ROUNDHOUSE_MAX_MODEL_LEN": "64"}, {"options": {"fit_max_model_len": True}}),
    ],
    ids=["by option", "by the deployment's environment", "by option over the agent's environment"],
)
def test_what_was_fitted_is_what_the_control_plane_computed(tmp_path: Path, environ: Any, fields: Any) -> None:
    options = configured(tmp_path, environ, spec=spec(computed=COMPUTED, **fields)).options
    assert (options.max_model_len, options.kv_cache_bytes) == (512, 1 << 20)


@pytest.mark.parametrize(
    ("environ", "fields", "says"),
    [
        (AUTO, {"computed": COMPUTED}, "ROUNDHOUSE_MAX_MODEL_LEN is auto, which only a deployment can ask for"),
        ({}, {"options": {"fit_max_model_len": True}}, "fit_max_model_len was not computed"),
    ],
    ids=["the agent's environment", "nobody has computed"],
)
def test_what_nobody_has_fitted_is_refused(tmp_path: Path, environ: Any, fields: Any, says: str) -> None:
    with pytest.raises(Usage, match=says):
        configured(tmp_path, environ, spec=spec(**fields))


def test_a_number_of_the_deployment_holds_over_what_its_environment_wants_fitted(tmp_path: Path) -> None:
    fields = spec(
        computed=COMPUTED, options={"max_model_len": 64}, env=[{"name": name, "value": "auto"} for name in AUTO]
    )
    assert configured(tmp_path, AUTO, spec=fields).options.max_model_len == 64
