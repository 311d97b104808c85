"""An engine runs what is assigned, though it was told a path where the assignment names a repository."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.launch import is_same
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec
from roundhouse.v1.deployment_pb2 import EngineOptions, EnvVar, HubRepository, ModelSource, Speculation

REPOSITORY = ModelSource(repository=HubRepository(id="acme/tiny", revision="a" * 40))
PATH = ModelSource(path="/hub/models--acme--tiny/snapshots/" + "a" * 40)


def spec(model: ModelSource, draft: ModelSource | None = None, **fields: Any) -> EngineSpec:
    options = EngineOptions(max_model_len=128)
    if draft is not None:
        options.speculation.CopyFrom(Speculation(draft_model=draft))
    return EngineSpec(deployment="chat", model=model, options=options, **fields)


@pytest.mark.parametrize(
    ("told", "assigned", "holds"),
    [
        (spec(PATH), spec(PATH), True),
        (spec(PATH), spec(REPOSITORY), True),
        (spec(PATH, PATH), spec(REPOSITORY, REPOSITORY), True),
        (spec(PATH), spec(REPOSITORY, env=[EnvVar(name="A", value="1")]), False),
        (spec(PATH), spec(REPOSITORY, engine="torch"), False),
    ],
    ids=["the same", "a repository", "a draft model too", "another environment", "another engine"],
)
def test_an_engine_was_told_what_is_assigned(told: EngineSpec, assigned: EngineSpec, holds: bool) -> None:
    assert is_same(told, assigned.SerializeToString(deterministic=True)) == holds
