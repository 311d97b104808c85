"""The first moments of the process, in which there is no command yet."""

import re
import signal
import subprocess
import sys

import pytest

from tests.unit.cli.conftest import Cli


@pytest.mark.parametrize("module", ["google.protobuf.descriptor", "grpc", "rich.cells"])
def test_ctrl_c_while_it_is_imported_ends_with_130_and_without_a_word(cli: Cli, module: str) -> None:
    command = [sys.executable, "-X", "importtime", *cli.command("generate", "demo", "on and on", "--ignore-eos")[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cli.environ()) as it:
        assert it.stderr is not None
        while not re.fullmatch(rf"import time:.*\| +{module}\n", it.stderr.readline()):
            assert it.poll() is None
        it.send_signal(signal.SIGINT)
        _, err = it.communicate(timeout=30)
    assert it.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == []


def test_ctrl_c_that_somebody_wants_ignored_is_ignored(cli: Cli) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from roundhouse.cli import __main__ as it; "
        "status = it.main(['--version']); assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN; sys.exit(status)"
    )
    ended = subprocess.run([sys.executable, "-c", program], env=cli.environ(), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
