"""The committed stubs load under every protobuf and grpcio that an engine's environment may bring."""

import json
import subprocess
from pathlib import Path
from typing import TypedDict

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements/stubs").glob("*.txt"))

# Runs in the other environment: imports all stubs, and sends each message through the wire format once.
PROBE = """
import importlib, json, pathlib, sys
from google import protobuf
from google.protobuf.message import Message
import grpc

root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
modules, messages = [], 0
for path in sorted(root.glob("roundhouse/**/*_pb2*.py")):
    module = importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
    modules.append(module.__name__)
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Message):
            assert kind.FromString(kind().SerializeToString()) == kind()
            messages += 1
versions = {"protobuf": protobuf.__version__, "grpc": grpc.__version__}
print(json.dumps({**versions, "modules": modules, "messages": messages}))
"""


class Loaded(TypedDict):
    """What the probe prints."""

    protobuf: str
    grpc: str
    modules: list[str]
    messages: int


def _pinned(lock: Path, package: str) -> str:
    return next(
        line.split("==")[1].split()[0] for line in lock.read_text().splitlines() if line.startswith(f"{package}==")
    )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_stubs_load_and_messages_survive_the_wire_under(lock: Path) -> None:
    python = ROOT / ".venvs/stubs" / lock.stem / "bin/python"
    run = subprocess.run([python, "-c", PROBE, ROOT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded: Loaded = json.loads(run.stdout)
    assert (loaded["protobuf"], loaded["grpc"]) == (_pinned(lock, "protobuf"), _pinned(lock, "grpcio"))
    assert "roundhouse.v1.inference_service_pb2_grpc" in loaded["modules"]
    assert loaded["messages"] > len(loaded["modules"])


def test_the_floor_and_three_lines_of_protobuf_are_tried() -> None:
    lines = {_pinned(lock, "protobuf").rsplit(".", 1)[0] for lock in LOCKS}
    assert {"5.29", "6.33"} < lines
    assert any(line.startswith("7.") for line in lines)
    assert "1.71.2" in {_pinned(lock, "grpcio") for lock in LOCKS}
