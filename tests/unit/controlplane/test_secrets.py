"""A sealed secret opens with its key, for what it was sealed for, and says nothing otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.secrets import KEY_BYTES, Secrets, load_key
from roundhouse.internal.v1.agent_service_pb2 import EngineAssignment
from roundhouse.internal.v1.engine_spec_pb2 import EngineSpec, SealedValue
from roundhouse.kit.errors import Usage

VALUE = "hunter2 é\nsecond line"


@pytest.fixture
def secrets() -> Secrets:
    return Secrets(bytes(KEY_BYTES))


def test_what_is_sealed_is_opened_and_cannot_be_read(secrets: Secrets) -> None:
    sealed = secrets.seal("chat", "TOKEN", 1, VALUE)
    assert secrets.open("chat", sealed) == VALUE
    assert b"hunter2" not in sealed.SerializeToString()
    assert secrets.seal("chat", "TOKEN", 1, VALUE).sealed != sealed.sealed, "nobody sees that two are the same"


@pytest.mark.parametrize(
    ("deployment", "change"),
    [
        ("other", {}),
        ("chat", {"name": "OTHER"}),
        ("chat", {"version": 2}),
        ("chat", {"sealed": b""}),
        ("chat", {"sealed": b"x" * 64}),
    ],
    ids=["another deployment", "another name", "another version", "nothing", "garbage"],
)
def test_what_was_sealed_for_something_else_is_not_opened(
    secrets: Secrets, deployment: str, change: dict[str, object]
) -> None:
    sealed = secrets.seal("chat", "TOKEN", 1, VALUE)
    sealed.MergeFrom(SealedValue(**change))  # type: ignore[arg-type]
    if change == {"sealed": b""}:
        sealed.ClearField("sealed")
    assert secrets.open(deployment, sealed) is None


def test_an_agent_is_told_secrets_as_variables_and_which_could_not_be_opened(secrets: Secrets) -> None:
    strange = Secrets(b"k" * KEY_BYTES).seal("chat", "LOST", 1, VALUE)
    spec = EngineSpec(deployment="chat", sealed_env=[secrets.seal("chat", "TOKEN", 1, VALUE), strange])
    plain = EngineAssignment(replica_uid="r-2")
    stored = EngineAssignment(replica_uid="r-1", spec=spec)
    told, same = secrets.opened([stored, plain])
    assert [(each.name, each.value) for each in told.spec.env] == [("TOKEN", VALUE)]
    assert (list(told.spec.secret_names), list(told.spec.unopened_names)) == (["TOKEN"], ["LOST"])
    assert not told.spec.sealed_env
    assert same is plain
    assert stored.spec == spec, "what is stored stays sealed"


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    key = load_key(path)
    assert len(key) == KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path) == key


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"short", "is no key of secrets: it has 5 bytes, not 32: restore it"), (None, "cannot be read")],
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "secrets.key"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(Usage, match=said):
        load_key(path)


def test_a_place_where_no_key_can_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="cannot be written"):
        load_key(tmp_path / "nowhere" / "secrets.key")
