"""`roundhouse store`: a store goes into a file and comes back from it; what cannot be done is one line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from controlplane import wire
from controlplane.cluster import begin_term
from controlplane.store.sqlite import open_sqlite
from roundhouse.internal.v1.engine_spec_pb2 import SealedValue
from roundhouse.internal.v1.store_pb2 import DeploymentRecord
from tests.unit.cli.conftest import Cli


@pytest.fixture
def cli() -> Cli:
    return Cli("127.0.0.1:1")  # nobody is called


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (path := tmp_path / "state").mkdir()

    async def fill() -> None:
        async with open_sqlite(path / "store.sqlite") as store:
            await begin_term(store)
            record = DeploymentRecord(sealed_env=[SealedValue(name="TOKEN", version=1, sealed=b"sealed")])
            await store.commit([], {wire.deployment_key("chat"): record.SerializeToString()})

    asyncio.run(fill())
    return path


def test_a_store_is_backed_up_and_restored_elsewhere(cli: Cli, state_dir: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "backup.sqlite", tmp_path / "other"
    made = cli("store", "backup", str(file), "--state-dir", str(state_dir))
    assert (made.status, made.out.partition(" of cluster")[0]) == (0, f"backed up to {file}: 1 deployment"), made.err
    assert made.err.startswith("chat has secrets: they are sealed with the control plane's key, which is not in the")
    again = cli("store", "restore", str(file), "--state-dir", str(other), "--json")
    shown = json.loads(again.out)
    assert (again.status, shown["deployments"], shown["kept_aside"]) == (0, ["chat"], "")
    assert Path(shown["destination"]) == other / "store.sqlite"
    told = cli("store", "restore", str(file), "--state-dir", str(other), "--force")
    assert told.out.splitlines()[1].startswith(f"what was there is kept in {other}/store.sqlite.replaced-")
    assert (
        told.err == "chat has secrets: start the control plane with their key, as secrets.key or with --secrets-key\n"
    )


def test_a_refusal_is_one_line_and_exit_status_2(cli: Cli, tmp_path: Path) -> None:
    ended = cli("store", "backup", str(tmp_path / "backup"), "--state-dir", str(tmp_path))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"roundhouse: {tmp_path} has no store: name the control plane's with --state-dir\n"
