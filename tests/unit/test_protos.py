"""The committed stubs are what the generator makes of the contract."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / ".venvs/protos/bin/python"
STUBS = ("roundhouse/v1", "roundhouse/internal/v1")


def _stubs_below(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for folder in STUBS for path in (root / folder).glob("*_pb2*")
    }


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Stubs made now, by path."""
    out = tmp_path_factory.mktemp("stubs")
    protos = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
    outs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([GENERATOR, "-m", "grpc_tools.protoc", "-I", ROOT / "protos", *outs, *protos], check=True, cwd=ROOT)
    return _stubs_below(out)


def test_committed_stubs_match_the_protos(fresh: dict[str, bytes]) -> None:
    committed = _stubs_below(ROOT)
    stale = sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))
    assert not stale, "run `make protos`"


def test_every_proto_has_messages_types_and_services_in_stubs(fresh: dict[str, bytes]) -> None:
    for proto in (ROOT / "protos").rglob("*.proto"):
        stem = str(proto.relative_to(ROOT / "protos").with_suffix(""))
        assert {f"{stem}_pb2.py", f"{stem}_pb2.pyi", f"{stem}_pb2_grpc.py"} <= fresh.keys()
