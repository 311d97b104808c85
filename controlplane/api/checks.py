"""What is wrong with a request, whatever the state. Pure; every violation is named at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from google.protobuf.duration_pb2 import Duration

from controlplane import wire
from controlplane.api.policy_checks import MAX_REPLICAS, check_policy
from controlplane.api.virtual_env_checks import check_virtual_env
from controlplane.catalog.checks import check_source
from controlplane.placement.strategies import STRATEGIES, canonical_strategy
from controlplane.routing_policies import ROUTING_POLICIES, canonical_routing_policy
from roundhouse.kit.errors import FieldViolation, InvalidArgument, NotServed, Reason
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.kit.times import from_duration
from roundhouse.options.engine_options import overlaid, violations
from roundhouse.options.engine_variables import is_setting, options_in, problems_in
from roundhouse.v1 import deployment_pb2, errors_pb2
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar, RolloutPolicy

MAX_GRACE_S = 3600.0
MAX_DEADLINE_S = 24 * 3600.0
# Spellings of each engine type; the first is the canonical one.
ENGINES: Mapping[str, tuple[str, ...]] = {"torch": ("torch", "pytorch", "transformers", "")}
# Settings that only one type of engine knows (`EngineOptions.arguments`).
ARGUMENTS: Mapping[str, tuple[str, ...]] = {"torch": ()}
_CANONICAL = {spelling: engine for engine, spellings in ENGINES.items() for spelling in spellings}
MAX_TEXTS = 64  # labels, and as many annotations
MAX_TEXTS_BYTES = 16 * 1024  # in all labels, and as much in all annotations: every list and watch sends them
MAX_ENV = 256
MAX_ENV_BYTES = 16 * 1024  # see MAX_SPECS_BYTES: room for some forty deployments that use it up
SHORTEST_SECRET = 4  # shorter ones could not be told from other text that an engine writes
_GPUS = "the node agent, which gives each replica its GPUs"
# Variables that are not for a deployment to set, and who sets them.
_OWNED: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": _GPUS,
    "NVIDIA_VISIBLE_DEVICES": _GPUS,
    "HIP_VISIBLE_DEVICES": _GPUS,
    "ROCR_VISIBLE_DEVICES": _GPUS,
}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_REQUEST_ID = re.compile(r"[ -~]{0,64}\Z")


def check_new(deployment: Deployment, request_id: str, strategies: Collection[str] = STRATEGIES) -> None:
    """Raises InvalidArgument or NotServed if this cannot be the deployment of a `CreateDeploymentRequest`.

    strategies: the names of those that exist.
    """
    check = FieldCheck()
    _check_name(check, deployment.name)
    _check_texts(check, deployment)
    check_source(check, deployment.model, "deployment.model")
    count = deployment.replica_count if deployment.HasField("replica_count") else 1
    check_replica_count(check, "deployment.replica_count", count)
    check_policy(check, deployment.placement, count)
    _check_rollout(check, deployment.rollout)
    _check_options(check, deployment.engine_options)
    _check_env(check, deployment.env)
    if deployment.HasField("virtual_env"):
        check_virtual_env(check, deployment.virtual_env, "deployment.virtual_env")
    _check_routing(check, deployment.routing_policy)
    check_request_id(check, request_id)
    check.raise_if_any()
    _check_draft_model(check, settings_of(deployment).speculation)
    check.raise_if_any()
    _check_engine(deployment.engine)
    _check_arguments(check, deployment)
    check.raise_if_any()
    _check_strategy(deployment.placement.strategy, strategies)
    _check_served(deployment)


def settings_of(deployment: Deployment) -> EngineOptions:
    """Returns what a deployment that `check_new` let pass sets of its engines: by itself, else by their environment."""
    return overlaid(options_in(variables_of(deployment.env)), deployment.engine_options)


def variables_of(env: Iterable[EnvVar]) -> Mapping[str, str]:
    """Returns the environment that is written in the clear."""
    return {each.name: each.value for each in env if each.HasField("value")}


def canonical_engine(spelling: str) -> str:
    """Returns the one spelling of an engine type that `check_new` let pass."""
    return _CANONICAL[spelling]


def check_replica_count(check: FieldCheck, field: str, count: int) -> None:
    """Notes a count that no deployment can have."""
    check.require(0 <= count <= MAX_REPLICAS, field, f"{count} is out of range: use 0 to {MAX_REPLICAS}")


def _check_rollout(check: FieldCheck, rollout: RolloutPolicy) -> None:
    field = "deployment.rollout"
    for name in ("max_surge", "max_unavailable"):
        count = getattr(rollout, name)
        in_range = 0 <= count <= MAX_REPLICAS
        check.require(in_range, f"{field}.{name}", f"{count} is out of range: use 0 to {MAX_REPLICAS}")
    stands_still = rollout.HasField("max_surge") and not rollout.max_surge and not rollout.max_unavailable
    check.require(not stands_still, field, "max_surge and max_unavailable are both 0: let one of them be 1 or more")
    check_duration(check, f"{field}.drain_grace", rollout.drain_grace, MAX_GRACE_S)
    if rollout.HasField("progress_deadline"):
        check_duration(check, f"{field}.progress_deadline", rollout.progress_deadline, MAX_DEADLINE_S)
        long = from_duration(rollout.progress_deadline) >= 1
        check.require(long, f"{field}.progress_deadline", "is shorter than a second: use 1 s to 24 h")


def _check_routing(check: FieldCheck, policy: str) -> None:
    known = not policy or canonical_routing_policy(policy) is not None
    choices = ", ".join(ROUTING_POLICIES)
    check.require(known, "deployment.routing_policy", f'"{policy[:100]}" is unknown: use {choices}, or leave it empty')


def check_request_id(check: FieldCheck, request_id: str) -> None:
    """Notes a `request_id` of a mutation that is malformed."""
    good = bool(_REQUEST_ID.match(request_id))
    check.require(good, "request_id", "use 1 to 64 printable ASCII characters, or leave it empty")


def check_duration(check: FieldCheck, field: str, duration: Duration, longest_s: float) -> None:
    """Notes a duration that is malformed, negative or too long."""
    nanos_fit = abs(duration.nanos) < 1_000_000_000 and duration.seconds * duration.nanos >= 0
    if check.require(nanos_fit, field, "seconds and nanos disagree in sign, or nanos exceed a second: mend it"):
        seconds = from_duration(duration)
        check.require(0 <= seconds <= longest_s, field, f"{seconds:g} s is out of range: use 0 to {longest_s:g} s")


def _check_name(check: FieldCheck, name: str) -> None:
    ids = wire.DEPLOYMENT.match(name)
    form = f'"{name[:100]}" is malformed: use the form {wire.DEPLOYMENT.pattern}'
    if check.require(ids is not None, "deployment.name", form) and ids is not None:
        check.require(is_id(ids[0]), "deployment.name", f'"{ids[0][:100]}" is not an id: use {ID_RULE}')


def _check_texts(check: FieldCheck, deployment: Deployment) -> None:
    _check_size(check, "deployment.annotations", deployment.annotations)
    if _check_size(check, "deployment.labels", deployment.labels):
        for key, value in deployment.labels.items():
            fits = 1 <= len(key) <= 63 and len(value) <= 255
            cure = "use keys of 1 to 63 characters and values of at most 255"
            check.require(fits, "deployment.labels", f'"{key[:63]}": {cure}')


def _check_size(check: FieldCheck, field: str, texts: Mapping[str, str]) -> bool:
    """Tells whether there are so few that each may be looked at; a request has room for a million."""
    if not check.require(len(texts) <= MAX_TEXTS, field, f"{len(texts)} are too many: use at most {MAX_TEXTS}"):
        return False
    size = sum(len(key.encode()) + len(value.encode()) for key, value in texts.items())
    fits = size <= MAX_TEXTS_BYTES
    check.require(fits, field, f"{size} bytes are too many: use at most {MAX_TEXTS_BYTES} in all")
    return True


def _check_options(check: FieldCheck, options: EngineOptions) -> None:
    at = "deployment.engine_options"
    for wrong in violations(options):
        check.require(False, f"{at}.{wrong.field}", wrong.description)
    if options.speculation.HasField("draft_model"):
        check_source(check, options.speculation.draft_model, f"{at}.speculation.draft_model")


def _check_draft_model(check: FieldCheck, speculation: deployment_pb2.Speculation) -> None:
    at = "deployment.engine_options.speculation"
    if speculation.method == deployment_pb2.SPECULATION_METHOD_DRAFT_MODEL:
        holds = speculation.draft_model.WhichOneof("source") is not None
        check.require(holds, f"{at}.draft_model", "is missing: set path or builtin, or use another method")


def _check_env(check: FieldCheck, env: Sequence[EnvVar]) -> None:
    # Before any of them is touched: empty ones take two bytes each, and a request has room for millions.
    if not check.require(len(env) <= MAX_ENV, "deployment.env", f"{len(env)} are too many: use at most {MAX_ENV}"):
        return
    size = sum(len(each.name.encode()) + len((each.value or each.secret_value).encode()) for each in env)
    fits = size <= MAX_ENV_BYTES
    check.require(fits, "deployment.env", f"{size} bytes are too many: use at most {MAX_ENV_BYTES} in all")
    seen: set[str] = set()
    for index, each in enumerate(env):
        field = f"deployment.env[{index}]"
        named = bool(_ENV_NAME.match(each.name))
        check.require(named, f"{field}.name", f'"{each.name[:100]}" is not a name: use [A-Za-z_][A-Za-z0-9_]*')
        check.require(each.name not in seen, f"{field}.name", f'"{each.name[:100]}" is there twice: name each once')
        seen.add(each.name)
        owner = _OWNED.get(each.name)
        check.require(owner is None, f"{field}.name", f'"{each.name}" is set by {owner}: leave it out')
        check.require(each.WhichOneof("source") is not None, field, "has no value: set value or secret_value")
        check.require("\0" not in each.value, f"{field}.value", "holds a NUL: use text without it")
        if each.HasField("secret_value"):
            _check_secret(check, f"{field}.secret_value", each)
    names = [each.name for each in env]
    for problem in problems_in(variables_of(env)):
        check.require(False, f"deployment.env[{names.index(problem.variable)}].value", problem.description)


def _check_secret(check: FieldCheck, field: str, variable: EnvVar) -> None:
    check.require("\0" not in variable.secret_value, field, "holds a NUL: use text without it")
    long = len(variable.secret_value) >= SHORTEST_SECRET
    check.require(long, field, f"is too short to be a secret: use {SHORTEST_SECRET} characters or more, or value")
    # What sizes an engine is looked at before there is one, and shown.
    setting = is_setting(variable.name)
    check.require(not setting, field, f'"{variable.name}" is a setting of the engine and no secret: use value')


def _check_engine(spelling: str) -> None:
    if spelling not in _CANONICAL:
        raise _unknown("deployment.engine", spelling, ENGINES, errors_pb2.ERROR_REASON_ENGINE_UNKNOWN)


def _check_arguments(check: FieldCheck, deployment: Deployment) -> None:
    """Notes settings that this type of engine does not know, each by its name."""
    engine = canonical_engine(deployment.engine)
    known = ARGUMENTS[engine]
    cure = f"use one of {', '.join(known)}" if known else "leave it out"
    for index, each in enumerate(deployment.engine_options.arguments):
        field = f"deployment.engine_options.arguments[{index}].name"
        check.require(each.name in known, field, f'"{each.name}" is unknown to the engine {engine}: {cure}')


def _check_strategy(spelling: str, known: Collection[str]) -> None:
    if spelling and canonical_strategy(spelling, known) is None:
        field = "deployment.placement.strategy"
        raise _unknown(field, spelling, known, errors_pb2.ERROR_REASON_STRATEGY_UNKNOWN)


def _unknown(field: str, value: str, known: Iterable[str], reason: Reason) -> InvalidArgument:
    names = ", ".join(known)
    violation = FieldViolation(field, f'"{value[:100]}" is unknown: use one of {names}')
    message = f"{field}: {violation.description}"
    return InvalidArgument(message, reason=reason, fields=[violation], metadata={"known": names})


def _check_served(deployment: Deployment) -> None:
    wrong = [
        FieldViolation(f"deployment.env[{index}].{kind}", "is not served yet: use secret_value")
        for index, each in enumerate(deployment.env)
        if (kind := each.WhichOneof("source")) == "secret_ref"
    ]
    if wrong:
        raise NotServed("; ".join(f"{each.field}: {each.description}" for each in wrong), fields=wrong)
