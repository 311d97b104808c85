"""What a request may say of how tokens are chosen: every bound of the contract. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from roundhouse.kit.fields import FieldCheck
from roundhouse.v1 import generation_pb2

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_STOP_TOKEN_IDS = 64
MAX_BIASES = 1024
MAX_BIAS = 100
MAX_BAD_WORDS = 16
MAX_BAD_WORD_CHARACTERS = 256
MAX_BAD_RUNS = 64
MAX_BAD_RUN_IDS = 64
MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_GRAMMAR_CHARACTERS = 65_536
MAX_TEXTS = 1024
MAX_TEXT_CHARACTERS = 1024

_AT = "sampling"
# A field, its bounds, and whether the lower one is among what it may be.
_NUMBERS = (
    ("temperature", 0, 2, True),
    ("top_p", 0, 1, False),
    ("min_p", 0, 1, True),
    ("typical_p", 0, 1, False),
    ("repetition_penalty", 0, 2, False),
    ("presence_penalty", -2, 2, True),
    ("frequency_penalty", -2, 2, True),
)


def check_sampling(check: FieldCheck, sampling: generation_pb2.SamplingParams, vocabulary_size: int) -> None:
    """Notes all that is out of range."""
    for name, low, high, includes_low in _NUMBERS:
        _check_number(check, sampling, name, low, high, includes_low=includes_low)
    for name, low, high in (("n", 1, MAX_CHOICES), ("logprobs", 0, MAX_LOGPROBS), ("prompt_logprobs", 0, MAX_LOGPROBS)):
        if sampling.HasField(name):
            value = getattr(sampling, name)
            check.require(low <= value <= high, f"{_AT}.{name}", f"{value} is out of range: use {low} to {high}")
    if sampling.HasField("top_k"):
        check.require(sampling.top_k >= 0, f"{_AT}.top_k", f"{sampling.top_k} is below 0: use 0 for all, or more")
    _check_lengths(check, sampling)
    _check_best_of(check, sampling)
    _check_texts(check, "stop", sampling.stop, MAX_STOPS, MAX_STOP_CHARACTERS)
    _check_texts(check, "bad_words", sampling.bad_words, MAX_BAD_WORDS, MAX_BAD_WORD_CHARACTERS)
    if _check_count(check, "stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS):
        check_ids(check, f"{_AT}.stop_token_ids", sampling.stop_token_ids, vocabulary_size)
    _check_biases(check, sampling, vocabulary_size)
    _check_bad_runs(check, sampling, vocabulary_size)
    if sampling.HasField("constraint"):
        _check_constraint(check, sampling)


def check_ids(check: FieldCheck, field: str, ids: Sequence[int], vocabulary_size: int) -> None:
    """Notes an id that the model does not have."""
    # `min` and `max` walk a prompt of a million ids without holding up other streams; a loop would.
    extremes = (min(ids), max(ids)) if ids else ()
    strange = next((each for each in extremes if not 0 <= each < vocabulary_size), None)
    check.require(strange is None, field, f"{strange} is not in the vocabulary: use ids in [0, {vocabulary_size})")


def _check_number(
    check: FieldCheck,
    sampling: generation_pb2.SamplingParams,
    name: str,
    low: float,
    high: float,
    *,
    includes_low: bool,
) -> None:
    value: float = getattr(sampling, name)
    if name in _PRESENT and not sampling.HasField(name):
        return
    # A NaN compares as false, so it fails every bound written like this; protobuf carries it happily.
    holds = (low <= value if includes_low else low < value) and value <= high
    bounds = f"{'[' if includes_low else '('}{low}, {high}]"
    check.require(holds, f"{_AT}.{name}", f"{_shown(value)} is out of range: use {bounds}")


_PRESENT = {field.name for field in generation_pb2.SamplingParams.DESCRIPTOR.fields if field.has_presence}


def _check_lengths(check: FieldCheck, sampling: generation_pb2.SamplingParams) -> None:
    most, least = sampling.max_tokens, sampling.min_tokens
    if sampling.HasField("max_tokens"):
        check.require(most >= 1, f"{_AT}.max_tokens", f"{most} is too few: use at least 1")
        holds = least <= max(most, 1)
        check.require(holds, f"{_AT}.min_tokens", f"{least} is more than max_tokens, {most}: use at most that")
    check.require(least >= 0, f"{_AT}.min_tokens", f"{least} is below 0: use 0 or more")


def _check_best_of(check: FieldCheck, sampling: generation_pb2.SamplingParams) -> None:
    if sampling.HasField("best_of"):
        low = min(max(sampling.n, 1), MAX_CHOICES)
        holds = low <= sampling.best_of <= MAX_CHOICES
        text = f"{sampling.best_of} is out of range: use {low} (that is n) to {MAX_CHOICES}"
        check.require(holds, f"{_AT}.best_of", text)


def _check_count(check: FieldCheck, name: str, count: int, most: int) -> bool:
    return check.require(count <= most, f"{_AT}.{name}", f"{count} entries are too many: use at most {most}")


def _check_texts(check: FieldCheck, name: str, texts: Sequence[str], most: int, characters: int) -> None:
    _check_count(check, name, len(texts), most)
    for number, text in enumerate(texts[:most]):
        holds = 1 <= len(text) <= characters
        what = f"{len(text)} characters are out of range: use 1 to {characters}"
        check.require(holds, f"{_AT}.{name}[{number}]", what)


def _check_biases(check: FieldCheck, sampling: generation_pb2.SamplingParams, vocabulary_size: int) -> None:
    if not _check_count(check, "logit_bias", len(sampling.logit_bias), MAX_BIASES):
        return
    check_ids(check, f"{_AT}.logit_bias", list(sampling.logit_bias), vocabulary_size)
    for token, bias in sorted(sampling.logit_bias.items()):
        holds = -MAX_BIAS <= bias <= MAX_BIAS
        what = f"{_shown(bias)} is out of range: use [-{MAX_BIAS}, {MAX_BIAS}]"
        check.require(holds, f"{_AT}.logit_bias[{token}]", what)


def _check_bad_runs(check: FieldCheck, sampling: generation_pb2.SamplingParams, vocabulary_size: int) -> None:
    runs = sampling.bad_token_runs
    if not _check_count(check, "bad_token_runs", len(runs), MAX_BAD_RUNS):
        return
    for number, run in enumerate(runs):
        field = f"{_AT}.bad_token_runs[{number}]"
        holds = 1 <= len(run.ids) <= MAX_BAD_RUN_IDS
        if check.require(holds, field, f"{len(run.ids)} ids are out of range: use 1 to {MAX_BAD_RUN_IDS}"):
            check_ids(check, field, run.ids, vocabulary_size)


def _check_constraint(check: FieldCheck, sampling: generation_pb2.SamplingParams) -> None:
    field, constraint = f"{_AT}.constraint", sampling.constraint
    kind = constraint.WhichOneof("kind")
    if not check.require(kind is not None, field, "holds no form that this version knows: set one, or leave it out"):
        return
    ends = not sampling.ignore_eos or len(sampling.stop_token_ids) > 0
    cure = "leaves an output with a form nothing to end with: leave it out, or name stop_token_ids"
    check.require(ends, f"{_AT}.ignore_eos", cure)
    if kind == "choice":
        _check_choice(check, f"{field}.choice.texts", constraint.choice.texts)
    elif kind != "json_object":
        count = len(getattr(constraint, str(kind)))
        holds = 1 <= count <= MAX_GRAMMAR_CHARACTERS
        what = f"{count} characters are out of range: use 1 to {MAX_GRAMMAR_CHARACTERS}"
        check.require(holds, f"{field}.{kind}", what)


def _check_choice(check: FieldCheck, field: str, texts: Sequence[str]) -> None:
    holds = 1 <= len(texts) <= MAX_TEXTS
    if check.require(holds, field, f"{len(texts)} texts are out of range: use 1 to {MAX_TEXTS}"):
        for number, text in enumerate(texts):
            what = f"{len(text)} characters are out of range: use 1 to {MAX_TEXT_CHARACTERS}"
            check.require(1 <= len(text) <= MAX_TEXT_CHARACTERS, f"{field}[{number}]", what)
        count = sum(map(len, texts))
        what = f"{count} characters are too many: use at most {MAX_GRAMMAR_CHARACTERS} in all"
        check.require(count <= MAX_GRAMMAR_CHARACTERS, field, what)


def _shown(value: float) -> str:
    brief = f"{value:g}"
    return brief if float(brief) == value else repr(value)  # 2.0000001 must not read as 2
