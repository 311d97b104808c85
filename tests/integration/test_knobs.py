"""Every setting of an engine does what it says, as seen over the port of an engine process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.kit.channel import open_channel
from roundhouse.kit.status import error_of
from roundhouse.v1 import deployment_pb2, inference_service_pb2, inference_service_pb2_grpc
from tests.support.engine_process import METADATA, PATIENCE_S, described, events_of, generate, serving, start
from tests.support.tiny_models import byte_level_tokenizer, write_tiny_model, write_tokenizer

pytestmark = pytest.mark.timeout(300)

LOAD_S = 1200.0  # a model that is compiled takes minutes on two cores
PROMPT = [{"token_ids": {"ids": [position % 300 for position in range(100)]}}]
MODEL = engine_service_pb2.ModelDescription


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", "qwen3")


@contextlib.asynccontextmanager
async def engine(
    model: Path, folder: Path, options: Any = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Runs an engine for the block, set by options and by its environment."""
    spec = {"deployment": "chat", "engine": "torch", "model": {"path": str(model)}, "options": options or {}}
    process = start(folder / "bundle", environ=environ, spec=spec)
    try:
        async with open_channel(await process.address()) as channel:
            await serving(channel, LOAD_S)
            yield channel
    except (AssertionError, grpc.aio.AioRpcError) as error:
        error.add_note(process.stderr()[-2000:])
        raise
    finally:
        process.end()


async def load(channel: grpc.aio.Channel) -> deployment_pb2.EngineLoad:
    return (await described(channel)).status.load


async def steps_of(channel: grpc.aio.Channel, *, count: int = 1, prompt: Any = None, max_tokens: int) -> int:
    """Returns how many steps some equal requests took together."""
    before = (await load(channel)).step_count
    calls = [generate(channel, prompt=prompt, max_tokens=max_tokens, ignore_eos=True) for _ in range(count)]
    await asyncio.gather(*map(events_of, calls))
    return (await load(channel)).step_count - before


async def cached(channel: grpc.aio.Channel) -> int:
    """Returns how much of a prompt was found in the cache when it came for the second time."""
    both = [(await events_of(generate(channel, prompt=PROMPT, max_tokens=1)))[-1].usage for _ in range(2)]
    assert both[0].prompt_token_count == both[1].prompt_token_count == len(PROMPT[0]["token_ids"]["ids"])
    return int(both[1].cached_prompt_token_count)


async def seen(
    model: Path, folder: Path, options: Any = None, environ: Mapping[str, str] | None = None
) -> tuple[engine_service_pb2.DescribeResponse, bytes]:
    """Returns what an engine says of itself after a request, and the hash of what that gave."""
    async with engine(model, folder, options, environ) as channel:
        events = await events_of(generate(channel, prompt=PROMPT, max_tokens=40, ignore_eos=True))
        return await described(channel), events[-2].finished.token_hash


async def test_without_settings_an_engine_batches_caches_and_takes_a_prompt_at_once(tiny: Path, tmp_path: Path) -> None:
    async with engine(tiny, tmp_path) as channel:
        answer = await described(channel)
        model = answer.model
        assert (model.dtype, model.quantization, model.is_compiled) == ("float32", "none", False)
        assert (model.block_size, model.max_model_len, model.has_prefix_caching) == (16, 256, True)
        assert model.speculation_method == deployment_pb2.SPECULATION_METHOD_OFF
        assert "attention by" in model.numerics
        assert model.total_block_count == answer.status.load.total_block_count
        assert await steps_of(channel, prompt=PROMPT, max_tokens=5) == 5
        assert await cached(channel) == 96
        assert await steps_of(channel, count=4, max_tokens=60) < 4 * 60


async def test_what_a_deployment_states_changes_the_engine(tiny: Path, tmp_path: Path) -> None:
    options = {
        "batch_size": 1,
        "max_num_batched_tokens": 16,
        "max_model_len": 128,
        "block_size": 32,
        "kv_cache_memory_bytes": 8 << 20,
        "enable_prefix_caching": False,
        "attention": "torch",
        "dtype": "bfloat16",
    }
    # What the environment says besides is overruled.
    environ = {"ROUNDHOUSE_BLOCK_SIZE": "8", "ROUNDHOUSE_BATCH_SIZE": "7", "ROUNDHOUSE_DTYPE": "float16"}
    async with engine(tiny, tmp_path, options, environ) as channel:
        model = (await described(channel)).model
        assert (model.block_size, model.max_model_len, model.has_prefix_caching) == (32, 128, False)
        assert (model.dtype, "attention by torch" in model.numerics) == ("bfloat16", True)
        token_bytes = 3 * 2 * 16 * 2 * 2  # layers, key-value heads, their size, keys and values, bfloat16
        assert model.total_block_count == (8 << 20) // (32 * token_bytes)
        # Seven steps for the prompt, of which the last gives the first token.
        assert await steps_of(channel, prompt=PROMPT, max_tokens=5) == 7 + 4
        assert await cached(channel) == 0
        assert await steps_of(channel, count=3, max_tokens=20) == 3 * 20
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await events_of(generate(channel, prompt=PROMPT, max_tokens=29))
        assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert error_of(refused.value).metadata["context_tokens"] == "128"


async def test_what_the_environment_says_changes_the_engine(tiny: Path, tmp_path: Path) -> None:
    environ = {
        "XINFERENCE_BATCH_SIZE": "2",
        "XINFERENCE_BATCH_INTERVAL": "1.5",
        "ROUNDHOUSE_MAX_NUM_BATCHED_TOKENS": "50",
        "ROUNDHOUSE_MAX_MODEL_LEN": "200",
        "ROUNDHOUSE_BLOCK_SIZE": "8",
        "ROUNDHOUSE_KV_CACHE_MEMORY": "4MiB",
        "ROUNDHOUSE_ENABLE_PREFIX_CACHING": "0",
        "ROUNDHOUSE_DTYPE": "bfloat16",
        "ROUNDHOUSE_ATTENTION": "torch",
    }
    async with engine(tiny, tmp_path, environ=environ) as channel:
        model = (await described(channel)).model
        assert (model.block_size, model.max_model_len, model.has_prefix_caching) == (8, 200, False)
        assert (model.dtype, "attention by torch" in model.numerics) == ("bfloat16", True)
        assert model.total_block_count == (4 << 20) // (8 * 3 * 2 * 16 * 2 * 2)
        assert await steps_of(channel, prompt=PROMPT, max_tokens=5) == 2 + 4
        # Both come within the interval, so that they take every step together, and the first waits it out.
        short = [{"token_ids": {"ids": [5, 6]}}]
        assert await steps_of(channel, count=2, prompt=short, max_tokens=9) == 9
        events = await events_of(generate(channel, prompt=short, max_tokens=1))
        assert events[-1].usage.queue_duration.ToNanoseconds() >= 1_500_000_000


@pytest.mark.slow  # starts one engine after the other
async def test_what_decides_the_output_is_part_of_the_fingerprint_and_guessing_ahead_is_not(
    tiny: Path, tmp_path: Path
) -> None:
    plain, tokens = await seen(tiny, tmp_path / "plain", {"attention": "torch"})
    prints = {plain.fingerprint}
    for setting, value in (("dtype", "bfloat16"), ("attention", "auto"), ("quantization", "int8")):
        answer, _ = await seen(tiny, tmp_path / setting, {"attention": "torch", setting: value})
        shown = "numerics" if setting == "attention" else setting
        assert getattr(answer.model, shown) != getattr(plain.model, shown)
        assert answer.fingerprint not in prints
        prints.add(answer.fingerprint)
    speculation = {"method": "SPECULATION_METHOD_NGRAM", "token_count": 3}
    answer, guessed = await seen(tiny, tmp_path / "guessed", {"attention": "torch", "speculation": speculation})
    assert answer.model.speculation_method == deployment_pb2.SPECULATION_METHOD_NGRAM
    assert answer.status.load.drafted_token_count > 0
    assert (answer.fingerprint, guessed) == (plain.fingerprint, tokens)


async def test_a_smaller_model_may_guess_ahead_and_changes_no_token(tiny: Path, tmp_path: Path) -> None:
    _, alone = await seen(tiny, tmp_path / "alone", environ={"ROUNDHOUSE_SPECULATION": "off"})
    environ = {"ROUNDHOUSE_SPECULATION": "draft_model", "ROUNDHOUSE_DRAFT_MODEL": str(tiny)}
    answer, guessed = await seen(tiny, tmp_path / "guessed", environ=environ)
    assert guessed == alone
    assert answer.model.speculation_method == deployment_pb2.SPECULATION_METHOD_DRAFT_MODEL
    load = answer.status.load
    assert load.accepted_token_count == load.drafted_token_count > 0, "the model itself guesses all right"


async def prompt_size(channel: grpc.aio.Channel) -> int:
    """Returns how many tokens the chat template makes of one message."""
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    message = {"role": "ROLE_USER", "content": [{"text": "the fox"}]}
    request = inference_service_pb2.ChatRequest(deployment="chat", messages=[message], sampling={"max_tokens": 1})
    events = await events_of(stub.Chat(request, metadata=METADATA, timeout=PATIENCE_S))
    return int(events[-1].usage.prompt_token_count)


@pytest.mark.slow  # starts one engine after the other
async def test_what_is_said_of_thinking_reaches_the_chat_template(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", "qwen3")
    template = (
        "{% for message in messages %}{{ message.content }}{% endfor %}"
        "{% if enable_thinking is not defined %}?{% elif enable_thinking %}??{% else %}???{% endif %}"
    )
    write_tokenizer(model, byte_level_tokenizer(), chat_template=template)
    sizes, prints = [], set()
    for name, options, environ in (
        ("unsaid", None, None),
        ("on", {"enable_thinking": True}, {"ROUNDHOUSE_ENABLE_THINKING": "0"}),
        ("off", None, {"ROUNDHOUSE_ENABLE_THINKING": "0"}),
    ):
        async with engine(model, tmp_path / name, options, environ) as channel:
            sizes.append(await prompt_size(channel))
            prints.add((await described(channel)).fingerprint)
    assert [size - sizes[0] for size in sizes] == [0, 1, 2]
    assert len(prints) == 3


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_compiled_layers_give_the_same_tokens(tiny: Path, tmp_path: Path) -> None:
    plain, alone = await seen(tiny, tmp_path / "plain")
    answer, compiled = await seen(tiny, tmp_path / "compiled", {"compile": True})
    assert (plain.model.is_compiled, answer.model.is_compiled) == (False, True)
    assert compiled == alone


async def test_a_setting_that_the_agents_environment_has_wrong_ends_the_engine_with_one_line(
    tiny: Path, tmp_path: Path
) -> None:
    process = start(tmp_path / "bundle", environ={"ROUNDHOUSE_BLOCK_SIZE": "20"})
    try:
        assert await process.exit_status() == 2
    finally:
        process.end()
    line = "engine: ROUNDHOUSE_BLOCK_SIZE: 20 is not served: use one of 8, 16, 32, 64, 128\n"
    assert process.stderr() == line
