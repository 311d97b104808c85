"""Deployments as they are written down, by keyword and by flag."""

from __future__ import annotations

from typing import Any

import click
import pytest

from roundhouse.cli.flags import deployment_flags, deployment_of
from roundhouse.client import deployment
from roundhouse.client.specify import EngineSettings, PlacementSettings, VirtualEnvSettings
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1.deployment_pb2 import (
    ANTI_AFFINITY_SCOPE_GPU,
    AntiAffinity,
    EngineOptions,
    PlacementPolicy,
    VirtualEnv,
)

APART = AntiAffinity(deployment_labels={"a": "b"}, scope=ANTI_AFFINITY_SCOPE_GPU)
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "max_model_len": ("--max-model-len 64", {"max_model_len": 64}, {"max_model_len": 64}),
    "batch_size": ("--batch-size 4", {"batch_size": 4}, {"batch_size": 4}),
    "batch_interval": ("--batch-interval 0.5", {"batch_interval_s": 0.5}, {"batch_interval": {"nanos": 500_000_000}}),
    "no batch_interval": ("--batch-interval 0", {"batch_interval_s": 0}, {"batch_interval": {}}),
    "tokens": ("--max-num-batched-tokens 64", {"max_num_batched_tokens": 64}, {"max_num_batched_tokens": 64}),
    "memory": ("--kv-cache-memory 1KiB", {"kv_cache_memory_bytes": 1024}, {"kv_cache_memory_bytes": 1024}),
    "block_size": ("--block-size 32", {"block_size": 32}, {"block_size": 32}),
    "dtype": ("--dtype BFLOAT16", {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    "max_waiting": ("--max-waiting 7", {"max_waiting": 7}, {"max_waiting": 7}),
    "prefixes": ("--enable-prefix-caching", {"enable_prefix_caching": True}, {"enable_prefix_caching": True}),
    "no prefixes": ("--no-enable-prefix-caching", {"enable_prefix_caching": False}, {"enable_prefix_caching": False}),
    "attention": ("--attention torch", {"attention": "torch"}, {"attention": "torch"}),
    "compile": ("--compile", {"compile": True}, {"compile": True}),
    "no compile": ("--no-compile", {"compile": False}, {"compile": False}),
    "quantization": ("-q int8", {"quantization": "int8"}, {"quantization": "int8"}),
    "speculation": (
        "--speculation ngram --speculation-tokens 2",
        {"speculation": "ngram", "speculation_tokens": 2},
        {"speculation": {"method": "SPECULATION_METHOD_NGRAM", "token_count": 2}},
    ),
    "a draft": (
        "--speculation draft_model --draft-model /d",
        {"speculation": "draft_model", "draft_model": "/d"},
        {"speculation": {"method": "SPECULATION_METHOD_DRAFT_MODEL", "draft_model": {"path": "/d"}}},
    ),
    "thinking": ("--enable-thinking", {"enable_thinking": True}, {"enable_thinking": True}),
    "no thinking": ("--no-enable-thinking", {"enable_thinking": False}, {"enable_thinking": False}),
    "a context that fits": ("--max-model-len auto", {"fit_max_model_len": True}, {"fit_max_model_len": True}),
    "a cache that fits": ("--kv-cache-memory auto", {"fit_kv_cache_memory": True}, {"fit_kv_cache_memory": True}),
    "an engine's own": (
        "--engine-argument swap_space 4",
        {"arguments": {"swap_space": "4"}},
        {"arguments": [{"name": "swap_space", "value": "4"}]},
    ),
    "nothing": ("", {}, {}),
}
PLACES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a strategy": ("--strategy spread", {"strategy": "spread"}, {"strategy": "spread"}),
    "gpu_count": ("--gpu-count 2", {"gpu_count": 2}, {"gpu_count": 2}),
    "memory": ("--memory 1GiB", {"memory_bytes": 1 << 30}, {"memory_bytes": 1 << 30}),
    "a share": ("--memory-fraction 0.5", {"memory_fraction": 0.5}, {"memory_fraction": 0.5}),
    "sharing": ("--allow-shared-gpu", {"allow_shared_gpu": True}, {"allow_shared_gpu": True}),
    "a gang": ("--n-gpu 2", {"gpus_per_replica": 2}, {"gpus_per_replica": 2}),
    "processors": ("--gpus-per-replica none", {"gpus_per_replica": 0}, {"gpus_per_replica": 0}),
    "any number": ("--n-gpu auto", {}, {}),
    "GPUs": (
        "--allow-gpu one:0,1 --allow-gpu one:GPU-1 --allow-gpu two:3 --allow-gpu two",
        {"allowed_gpus": {"one": [0, 1, "GPU-1"], "two": []}},
        {"allowed_gpus": [{"node": "nodes/one", "indexes": [0, 1], "uuids": ["GPU-1"]}, {"node": "nodes/two"}]},
    ),
    "labels": ("--node-label zone=a", {"node_labels": {"zone": "a"}}, {"node_labels": {"zone": "a"}}),
    "taints": (
        "--tolerate spot --tolerate team=x",
        {"tolerations": {"spot": None, "team": "x"}},
        {"tolerations": [{"key": "spot"}, {"key": "team", "value": "x"}]},
    ),
    "apart": ("--apart gpu:a=b", {"anti_affinity": [APART]}, {"anti_affinity": [APART]}),
}


ENVIRONMENTS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "none": ("", None),
    "none, said so": ("--disable-virtual-env", None),
    "one without packages": ("--enable-virtual-env", {}),
    "packages": ("-vp numpy -vp peft>=0.15", {"packages": ["numpy", "peft>=0.15"]}),
    "constraints": ("--virtual-env-constraint numpy<3", {"constraints": ["numpy<3"]}),
    "an index": ("--virtual-env-index-url https://host/simple", {"index_url": "https://host/simple"}),
    "links": ("--virtual-env-find-links /a --virtual-env-find-link /b", {"find_links": ["/a", "/b"]}),
    "inheritance": ("--virtual-env-inherit", {"inherit": True}),
    "no inheritance": ("--no-virtual-env-inherit", {"inherit": False}),
}


@click.command()
@deployment_flags
def written(**flags: Any) -> Any:
    flags.pop("worker_ip"), flags.pop("gpu_idx")
    return deployment_of(**flags)


@pytest.mark.parametrize(("flags", "keywords", "options"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_the_same_by_flag_and_by_keyword(flags: str, keywords: Any, options: Any) -> None:
    by_flag = written.main(["-n", "demo", *flags.split()], standalone_mode=False)
    by_keyword = deployment("demo", builtin="demo", **keywords)
    assert by_flag.engine_options == by_keyword.engine_options == EngineOptions(**options)


@pytest.mark.parametrize(("flags", "keywords", "policy"), PLACES.values(), ids=PLACES)
def test_a_place_is_the_same_by_flag_and_by_keyword(flags: str, keywords: Any, policy: Any) -> None:
    by_flag = written.main(["-n", "demo", *flags.split()], standalone_mode=False)
    by_keyword = deployment("demo", builtin="demo", **keywords)
    assert by_flag.placement == by_keyword.placement == PlacementPolicy(**policy)


@pytest.mark.parametrize(("flags", "keywords"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_is_the_same_by_flag_and_by_keyword(flags: str, keywords: Any) -> None:
    by_flag = written.main(["-n", "demo", *flags.split()], standalone_mode=False)
    by_keyword = deployment("demo", builtin="demo", virtual_env=keywords)
    assert by_flag.HasField("virtual_env") == by_keyword.HasField("virtual_env") == (keywords is not None)
    assert by_flag.virtual_env == by_keyword.virtual_env == VirtualEnv(**(keywords or {}))


def test_everything_of_an_environment_can_be_said_both_ways() -> None:
    said = {name for _, keywords in ENVIRONMENTS.values() for name in keywords or ()}
    assert said == {field.name for field in VirtualEnv.DESCRIPTOR.fields} == set(VirtualEnvSettings.__annotations__)


def test_every_setting_of_the_contract_can_be_said_both_ways() -> None:
    said = {name for _, _, options in SETTINGS.values() for name in options}
    assert said == {field.name for field in EngineOptions.DESCRIPTOR.fields}
    assert {name for _, keywords, _ in SETTINGS.values() for name in keywords} == set(EngineSettings.__annotations__)


def test_every_place_of_the_contract_can_be_said_both_ways() -> None:
    said = {name for _, _, policy in PLACES.values() for name in policy}
    assert said == {field.name for field in PlacementPolicy.DESCRIPTOR.fields}
    assert said == set(PlacementSettings.__annotations__)


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        ({"speculation": "eagle"}, "speculation"),
        ({"batch_sise": 4}, "deployment"),
        ({"batch_size": 2**40}, "deployment"),
        ({"virtual_env": {"package": ["numpy"]}}, "deployment"),
        ({"family": "qwen3"}, "model"),
        ({"size_in_billions": "4"}, "model"),
        ({"revision": "main"}, "model"),
    ],
    ids=[
        "a method",
        "a name",
        "a number that does not fit",
        "a name of packages",
        "a second model",
        "a size of ours",
        "a version of ours",
    ],
)
def test_what_the_contract_cannot_hold_is_refused(keywords: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        deployment("demo", builtin="demo", **keywords)
    assert [each.field for each in refused.value.fields] == [field]
