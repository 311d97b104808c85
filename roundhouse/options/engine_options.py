"""Settings of an engine: the bounds of each, and which of two holds. The same for who sizes one and who runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from roundhouse.kit.errors import FieldViolation
from roundhouse.kit.times import from_duration
from roundhouse.v1 import deployment_pb2
from roundhouse.v1.deployment_pb2 import EngineArgument, EngineOptions

RANGES: Mapping[str, tuple[int, int]] = {
    "max_model_len": (16, 2**31 - 1),
    "batch_size": (1, 4096),
    "max_num_batched_tokens": (16, 65536),
    "kv_cache_memory_bytes": (1, 2**63 - 1),
    "max_waiting": (1, 100_000),
}
WORDS: Mapping[str, tuple[str, ...]] = {
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "attention": ("auto", "torch", "c", "triton"),
    "quantization": ("none", "int8"),
}
METHODS: Mapping[str, deployment_pb2.SpeculationMethod] = {
    "off": deployment_pb2.SPECULATION_METHOD_OFF,
    "ngram": deployment_pb2.SPECULATION_METHOD_NGRAM,
    "draft_model": deployment_pb2.SPECULATION_METHOD_DRAFT_MODEL,
}
# What is fitted to the memory that there is, by the option that states it.
FITTED: Mapping[str, str] = {"max_model_len": "fit_max_model_len", "kv_cache_memory_bytes": "fit_kv_cache_memory"}
OPPOSITES = {**FITTED, **{fitted: stated for stated, fitted in FITTED.items()}}
BLOCK_SIZES = (8, 16, 32, 64, 128)
LONGEST_INTERVAL_S = 10.0
MOST_GUESSES = 8
MOST_ARGUMENTS = 64
MOST_ARGUMENTS_BYTES = 8 * 1024  # names and values
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


def overlaid(under: EngineOptions, over: EngineOptions) -> EngineOptions:
    """Returns the settings of both; where both say something, `over` holds."""
    both = EngineOptions()
    both.CopyFrom(under)
    for field, _ in over.ListFields():
        if field.name != "speculation":  # one may say how, the other how many tokens
            both.ClearField(field.name)  # a duration of 0 s would leave what stands there
        if field.name in OPPOSITES:
            both.ClearField(OPPOSITES[field.name])
    both.MergeFrom(over)
    return both


def violations(options: EngineOptions) -> Iterator[FieldViolation]:
    """Yields what is out of range, whatever the model."""
    for name, (low, high) in RANGES.items():
        value = getattr(options, name)
        if options.HasField(name) and not low <= value <= high:
            yield FieldViolation(name, f"{value} is out of range: use {low} to {high}")
    for stated, fitted in FITTED.items():
        if getattr(options, fitted) and options.HasField(stated):
            yield FieldViolation(fitted, f"{stated} is given as well: give one of them")
    if options.HasField("batch_interval"):
        yield from _interval_violations(options)
    if options.HasField("block_size") and options.block_size not in BLOCK_SIZES:
        sizes = ", ".join(map(str, BLOCK_SIZES))
        yield FieldViolation("block_size", f"{options.block_size} is not served: use one of {sizes}")
    for name, words in WORDS.items():
        word = getattr(options, name)
        if word and word not in words:
            yield FieldViolation(name, f'"{word[:100]}" is unknown: use one of {", ".join(words)}')
    yield from _speculation_violations(options.speculation)
    yield from _argument_violations(options.arguments)


def _interval_violations(options: EngineOptions) -> Iterator[FieldViolation]:
    name, interval = "batch_interval", options.batch_interval
    seconds = from_duration(interval)
    if abs(interval.nanos) >= 1_000_000_000 or interval.seconds * interval.nanos < 0:
        yield FieldViolation(name, "seconds and nanos disagree in sign, or nanos exceed a second: mend it")
    elif not 0 <= seconds <= LONGEST_INTERVAL_S:
        yield FieldViolation(name, f"{seconds:g} s is out of range: use 0 to {LONGEST_INTERVAL_S:g} s")


def _speculation_violations(speculation: deployment_pb2.Speculation) -> Iterator[FieldViolation]:
    count = speculation.token_count
    if speculation.method not in deployment_pb2.SpeculationMethod.values():
        words = ", ".join(METHODS).upper()
        yield FieldViolation("speculation.method", f"{speculation.method} is unknown: use one of {words}")
    if speculation.HasField("token_count") and not 1 <= count <= MOST_GUESSES:
        yield FieldViolation("speculation.token_count", f"{count} is out of range: use 1 to {MOST_GUESSES}")


def _argument_violations(arguments: Sequence[EngineArgument]) -> Iterator[FieldViolation]:
    if len(arguments) > MOST_ARGUMENTS:  # before any is looked at: a request has room for millions
        yield FieldViolation("arguments", f"{len(arguments)} are too many: use at most {MOST_ARGUMENTS}")
        return
    size = sum(len(each.name.encode()) + len(each.value.encode()) for each in arguments)
    if size > MOST_ARGUMENTS_BYTES:
        yield FieldViolation("arguments", f"{size} bytes are too many: use at most {MOST_ARGUMENTS_BYTES} in all")
    seen: set[str] = set()
    for index, each in enumerate(arguments):
        if not _ARGUMENT.match(each.name):
            rule = "use [a-z][a-z0-9_]*, at most 63 characters"
            yield FieldViolation(f"arguments[{index}].name", f'"{each.name[:100]}" is not a name: {rule}')
        elif each.name in seen:
            yield FieldViolation(f"arguments[{index}].name", f'"{each.name}" is there twice: name each once')
        seen.add(each.name)
