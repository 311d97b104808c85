"""Settings of an engine: what variables say, what is out of range, and which of two holds."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from controlplane.placement import need
from roundhouse.kit.errors import Usage
from roundhouse.options import engine_options
from roundhouse.options.engine_options import overlaid, violations
from roundhouse.options.engine_variables import options_in, problems_in
from roundhouse.v1.deployment_pb2 import (
    SPECULATION_METHOD_DRAFT_MODEL,
    SPECULATION_METHOD_NGRAM,
    EngineOptions,
    ModelSource,
    Speculation,
)

READ: dict[str, tuple[str, EngineOptions]] = {
    "ROUNDHOUSE_MAX_MODEL_LEN": ("2048", EngineOptions(max_model_len=2048)),
    "ROUNDHOUSE_BATCH_SIZE": ("4", EngineOptions(batch_size=4)),
    "XINFERENCE_BATCH_SIZE": ("5", EngineOptions(batch_size=5)),
    "ROUNDHOUSE_BATCH_INTERVAL": ("0.25", EngineOptions(batch_interval=Duration(nanos=250_000_000))),
    "XINFERENCE_BATCH_INTERVAL": ("0", EngineOptions(batch_interval=Duration())),
    "ROUNDHOUSE_MAX_NUM_BATCHED_TOKENS": ("64", EngineOptions(max_num_batched_tokens=64)),
    "ROUNDHOUSE_KV_CACHE_MEMORY": ("2GiB", EngineOptions(kv_cache_memory_bytes=2 << 30)),
    "ROUNDHOUSE_BLOCK_SIZE": ("32", EngineOptions(block_size=32)),
    "ROUNDHOUSE_DTYPE": ("bfloat16", EngineOptions(dtype="bfloat16")),
    "ROUNDHOUSE_MAX_WAITING": ("7", EngineOptions(max_waiting=7)),
    "ROUNDHOUSE_ENABLE_PREFIX_CACHING": ("0", EngineOptions(enable_prefix_caching=False)),
    "ROUNDHOUSE_ATTENTION": ("torch", EngineOptions(attention="torch")),
    "ROUNDHOUSE_COMPILE": ("1", EngineOptions(compile=True)),
    "ROUNDHOUSE_QUANTIZATION": ("int8", EngineOptions(quantization="int8")),
    "ROUNDHOUSE_SPECULATION": ("ngram", EngineOptions(speculation=Speculation(method=SPECULATION_METHOD_NGRAM))),
    "ROUNDHOUSE_SPECULATION_TOKENS": ("8", EngineOptions(speculation=Speculation(token_count=8))),
    "ROUNDHOUSE_ENABLE_THINKING": ("0", EngineOptions(enable_thinking=False)),
    "ROUNDHOUSE_DRAFT_MODEL": ("/m", EngineOptions(speculation=Speculation(draft_model=ModelSource(path="/m")))),
}


@pytest.mark.parametrize(("variable", "text", "options"), [(each, *READ[each]) for each in READ], ids=READ)
def test_every_setting_has_its_variable(variable: str, text: str, options: EngineOptions) -> None:
    assert options_in({variable: text, "HOME": "/root"}) == options


@pytest.mark.parametrize(
    ("variable", "options"),
    [
        ("ROUNDHOUSE_MAX_MODEL_LEN", EngineOptions(fit_max_model_len=True)),
        ("ROUNDHOUSE_KV_CACHE_MEMORY", EngineOptions(fit_kv_cache_memory=True)),
    ],
)
def test_what_fits_can_be_asked_for_in_place_of_a_number(variable: str, options: EngineOptions) -> None:
    assert options_in({variable: "auto"}) == options
    [problem] = problems_in({variable: "Auto"})
    assert problem.description.endswith(", or auto")


WITHOUT_VARIABLE = {"fit_max_model_len", "fit_kv_cache_memory", "arguments"}  # the first two share that of the number


def test_all_settings_of_the_contract_can_be_set_by_a_variable() -> None:
    set_by_variables = {field.name for _, options in READ.values() for field, _ in options.ListFields()}
    assert set_by_variables == {field.name for field in EngineOptions.DESCRIPTOR.fields} - WITHOUT_VARIABLE


@pytest.mark.parametrize(
    ("variable", "text", "cure"),
    [
        ("ROUNDHOUSE_BATCH_SIZE", "0", "use 1 to 4096"),
        ("XINFERENCE_BATCH_SIZE", "many", "use a whole number, 1 to 4096"),
        ("ROUNDHOUSE_BATCH_SIZE", "9" * 500, "use a whole number"),
        pytest.param("ROUNDHOUSE_MAX_MODEL_LEN", "9" * 10_000, "use a whole number, 16 to 2147483647", id="endless"),
        ("ROUNDHOUSE_MAX_MODEL_LEN", "2147483648", "use a whole number, 16 to 2147483647"),
        ("ROUNDHOUSE_BATCH_SIZE", "0" * 20, "use 1 to 4096"),
        ("ROUNDHOUSE_MAX_MODEL_LEN", "15", "use 16 to"),
        ("ROUNDHOUSE_BATCH_INTERVAL", "-0.1", "use 0 to 10 s"),
        ("ROUNDHOUSE_BATCH_INTERVAL", "nan", "use seconds, 0 to 10"),
        ("XINFERENCE_BATCH_INTERVAL", "inf", "use seconds, 0 to 10"),
        ("ROUNDHOUSE_MAX_NUM_BATCHED_TOKENS", "65537", "use 16 to 65536"),
        ("ROUNDHOUSE_KV_CACHE_MEMORY", "lots", "write a size such as 24GiB"),
        ("ROUNDHOUSE_KV_CACHE_MEMORY", "0", "use 1 to"),
        ("ROUNDHOUSE_BLOCK_SIZE", "20", "use one of 8, 16, 32, 64, 128"),
        ("ROUNDHOUSE_BLOCK_SIZE", "1024", "use one of 8, 16, 32, 64, 128"),
        ("ROUNDHOUSE_DTYPE", "int4", "use one of auto, float32"),
        ("ROUNDHOUSE_ENABLE_PREFIX_CACHING", "perhaps", "use 1 or 0"),
        ("ROUNDHOUSE_ATTENTION", "flash", "use one of auto, torch"),
        ("ROUNDHOUSE_COMPILE", "2", "use 1 or 0"),
        ("ROUNDHOUSE_QUANTIZATION", "int3", "use one of none, int8"),
        ("ROUNDHOUSE_SPECULATION", "eagle", "use one of off, ngram, draft_model"),
        ("ROUNDHOUSE_SPECULATION_TOKENS", "9", "use 1 to 8"),
        ("ROUNDHOUSE_DRAFT_MODEL", "models/x", "use an absolute path"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_with_the_cure(variable: str, text: str, cure: str) -> None:
    with pytest.raises(Usage) as raised:
        options_in({variable: text})
    [problem] = problems_in({variable: text})
    assert raised.value.message == f"{variable}: {problem.description}"
    assert cure in problem.description
    assert len(problem.description) < 300


@pytest.mark.parametrize("field", sorted(engine_options.RANGES))
def test_a_variable_takes_both_ends_of_its_range(field: str) -> None:
    variable = "ROUNDHOUSE_" + field.upper().removesuffix("_BYTES")
    for value in engine_options.RANGES[field]:
        assert getattr(options_in({variable: str(value)}), field) == value
        assert getattr(options_in({variable: f"{value:030}"}), field) == value


def test_every_variable_that_cannot_be_used_is_found_at_once() -> None:
    environ = {"ROUNDHOUSE_BATCH_SIZE": "0", "ROUNDHOUSE_DTYPE": "x", "ROUNDHOUSE_COMPILE": "?"}
    assert [each.variable for each in problems_in(environ)] == list(environ)


@pytest.mark.parametrize(
    ("under", "over", "both"),
    [
        pytest.param({"batch_size": 1, "dtype": "float32"}, {"batch_size": 2}, {"batch_size": 2, "dtype": "float32"}),
        pytest.param(
            {"enable_prefix_caching": True}, {"enable_prefix_caching": False}, {"enable_prefix_caching": False}
        ),
        pytest.param({"batch_interval": {"seconds": 1}}, {"batch_interval": {}}, {"batch_interval": {}}, id="0 s"),
        pytest.param(
            {"speculation": {"method": "SPECULATION_METHOD_NGRAM", "token_count": 2}},
            {"speculation": {"token_count": 3}},
            {"speculation": {"method": "SPECULATION_METHOD_NGRAM", "token_count": 3}},
            id="a method and a count",
        ),
        pytest.param(
            {"speculation": {"method": "SPECULATION_METHOD_NGRAM"}},
            {"speculation": {"method": "SPECULATION_METHOD_OFF"}},
            {"speculation": {"method": "SPECULATION_METHOD_OFF"}},
            id="off",
        ),
        pytest.param({"fit_max_model_len": True}, {"max_model_len": 64}, {"max_model_len": 64}, id="a number"),
        pytest.param(
            {"kv_cache_memory_bytes": 64}, {"fit_kv_cache_memory": True}, {"fit_kv_cache_memory": True}, id="what fits"
        ),
    ],
)
def test_what_is_laid_over_holds(under: Any, over: Any, both: Any) -> None:
    assert overlaid(EngineOptions(**under), EngineOptions(**over)) == EngineOptions(**both)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_interval": {"seconds": 1, "nanos": -1}}, "batch_interval"),
        ({"batch_interval": {"nanos": 10**9}}, "batch_interval"),
        ({"attention": "x" * 1000}, "attention"),
        ({"fit_max_model_len": True, "max_model_len": 64}, "fit_max_model_len"),
        ({"fit_kv_cache_memory": True, "kv_cache_memory_bytes": 64}, "fit_kv_cache_memory"),
        ({"speculation": {"method": 9}}, "speculation.method"),
        ({"arguments": [{"name": "a"}] * 65}, "arguments"),
        ({"arguments": [{"name": "a", "value": "x" * 9000}]}, "arguments"),
        ({"arguments": [{"name": "a"}, {"name": "Swap-space"}]}, "arguments[1].name"),
        ({"arguments": [{"name": "a" * 64}]}, "arguments[0].name"),
        ({"arguments": [{"name": "a"}, {"name": "a"}]}, "arguments[1].name"),
        ({"speculation": {"method": "SPECULATION_METHOD_NGRAM", "token_count": 0}}, "speculation.token_count"),
    ],
)
def test_what_only_a_message_can_say_wrong_is_found_too(options: Any, field: str) -> None:
    [wrong] = violations(EngineOptions(**options))
    assert wrong.field == field
    assert len(wrong.description) < 300


def test_nothing_is_wrong_with_what_is_unset() -> None:
    assert list(violations(EngineOptions())) == []
    assert list(violations(EngineOptions(speculation=Speculation(method=SPECULATION_METHOD_DRAFT_MODEL)))) == []


def test_placement_knows_the_same_blocks() -> None:
    assert engine_options.BLOCK_SIZES == need.BLOCK_SIZES
