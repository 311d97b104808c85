"""What the node agent is started with."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from roundhouse.kit import logs
from roundhouse.kit.authorized import read_token
from roundhouse.kit.config import parse_bytes
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen
from roundhouse.kit.tls import is_loopback

_SIMULATED = re.compile(r"(\d+)x(.+)\Z")
_PORTS = re.compile(r"(\d+)-(\d+)\Z")
_MOST_SIMULATED = 64
_LEAST_GPU_BYTES = 1024**2
_LONGEST_KEY, _LONGEST_VALUE = 63, 255
_MOST_TAINTS = 64
_JOIN_TOKEN = "ROUNDHOUSE_JOIN_TOKEN"
# Of the agent, and of people: not for engines, nor for what builds environments.
PRIVATE_VARIABLES = frozenset({_JOIN_TOKEN, "ROUNDHOUSE_TOKEN", "ROUNDHOUSE_TOKEN_FILE"})


@dataclass(frozen=True, slots=True)
class Simulation:
    """GPUs to pretend."""

    count: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class Config:
    """The agent's settings, checked."""

    control_plane: str
    state_dir: Path
    node_id: str | None = None
    simulation: Simulation | Path | None = None  # a path: that of a script
    simulates_only_if_none: bool = False  # real GPUs come first
    stop_grace_s: float | None = None  # at the end of the agent: how long requests may go on; None: engines run on
    labels: Mapping[str, str] | None = None
    taints: tuple[tuple[str, str], ...] = ()  # keys and values; they keep replicas off that do not tolerate them
    engine_host: str = "127.0.0.1"
    engine_ports: tuple[int, int] = (0, 0)  # lowest and highest; 0 lets the system choose
    sample_period_s: float = 1.0
    venv_dir: Path | None = None  # of environments that deployments have to themselves; None: in the state directory
    tls_ca: Path | None = None
    join_token: str | None = field(default=None, repr=False)
    log_level: logs.Level = "info"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises Usage, which is printed like every other refusal to start."""
        raise Usage(f"{message}: see --help")


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Returns the settings; raises Usage with one readable line for each kind of mistake."""
    parsed = _parser(environ).parse_args(arguments)
    if not 0.1 <= parsed.sample_period <= 60:
        raise Usage(f"--sample-period is {parsed.sample_period:g}: use seconds from 0.1 to 60")
    host = Listen.parse(parsed.control_plane).host
    if not (is_loopback(host) or parsed.tls_ca or parsed.insecure):
        raise Usage(
            f"refusing to send the keys of engines to {host} in the clear: give --tls-ca, "
            "or say --insecure if the network is trusted"
        )
    if not (is_loopback(parsed.engine_host) or parsed.insecure):
        raise Usage(
            f"refusing to let engines listen on {parsed.engine_host}, since they do not speak TLS yet: "
            "listen on 127.0.0.1, or say --insecure if the network is trusted"
        )
    join_token = _given_token(parsed.join_token, parsed.join_token_file, environ)
    if join_token is not None and parsed.tls_ca is None:
        raise Usage("a join token goes over TLS only: give --tls-ca, or start without a join token")
    if parsed.simulate_gpus and parsed.simulate_gpus_if_none:
        raise Usage("--simulate-gpus and --simulate-gpus-if-none contradict one another: give one of them")
    if parsed.stop_engines_on_exit is not None and not 0 <= parsed.stop_engines_on_exit < math.inf:
        raise Usage(f"--stop-engines-on-exit is {parsed.stop_engines_on_exit:g}: use seconds from 0")
    taints = tuple(sorted({_taint(each) for each in parsed.taint}))
    if len(taints) > _MOST_TAINTS:
        raise Usage(f"{len(taints)} taints are too many: use at most {_MOST_TAINTS}")
    simulated = parsed.simulate_gpus or parsed.simulate_gpus_if_none
    return Config(
        control_plane=parsed.control_plane,
        state_dir=parsed.state_dir.absolute(),  # engines are told of paths below it
        node_id=parsed.node_id,
        simulation=None if simulated is None else parse_simulation(simulated),
        simulates_only_if_none=parsed.simulate_gpus is None,
        stop_grace_s=parsed.stop_engines_on_exit,
        labels=dict(_label(each) for each in parsed.label),
        taints=taints,
        engine_host=parsed.engine_host,
        engine_ports=(0, 0) if parsed.engine_ports is None else _ports(parsed.engine_ports),
        sample_period_s=parsed.sample_period,
        venv_dir=None if parsed.venv_dir is None else parsed.venv_dir.absolute(),
        tls_ca=parsed.tls_ca,
        join_token=join_token,
        log_level=parsed.log_level,
    )


def parse_simulation(text: str) -> Simulation | Path:
    """Reads `2x24GiB`, or the name of a file that is there; raises Usage for anything else."""
    found = _SIMULATED.match(text)
    if found is None:
        script = Path(text)
        if text and script.is_file():
            return script.absolute()
        raise Usage(
            f'simulated GPUs are "{text}": write a count and the size of each, such as 2x24GiB, or name a script'
        )
    count, bytes_each = int(found[1]), parse_bytes(found[2], "the size of simulated GPUs")
    if not 1 <= count <= _MOST_SIMULATED:
        raise Usage(f"{count} GPUs are to be simulated: use 1 to {_MOST_SIMULATED}")
    if bytes_each < _LEAST_GPU_BYTES:
        raise Usage(f"simulated GPUs are to have {bytes_each} bytes: give each at least 1MiB")
    return Simulation(count, bytes_each)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="nodeagent", description="Runs the engines that the control plane assigns to this machine.")
    add = parser.add_argument
    add("--control-plane", required=True, metavar="HOST:PORT", help="address of the control plane")
    add("--state-dir", type=Path, default=_default_state_dir(environ), metavar="DIR", help="default: %(default)s")
    add("--node-id", metavar="ID", help="id of this node; default: made of the host's name, then kept in DIR")
    add(
        "--simulate-gpus",
        metavar="2x24GiB|FILE",
        help="pretend to have GPUs, so many and so large, or as a script of JSON lines says; engines compute on the "
        'processors. The first line is {"gpus": 2, "total_memory_bytes": "24GiB"}; for the others see docs/gpu.md',
    )
    add("--simulate-gpus-if-none", metavar="2x24GiB|FILE", help="the same, unless there are real ones")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label of this node; may be repeated")
    add(
        "--taint",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="keep replicas off that do not tolerate this; may be repeated",
    )
    add("--engine-host", default="127.0.0.1", metavar="HOST", help="where engines listen; default: %(default)s")
    add("--engine-ports", metavar="LOW-HIGH", help="ports that engines may use; default: any")
    add(
        "--venv-dir",
        type=Path,
        metavar="DIR",
        help="where environments of deployments are built; several agents may share it; default: in --state-dir",
    )
    add("--sample-period", type=float, default=1.0, metavar="SECONDS", help="0.1 to 60; default: %(default)s")
    add("--tls-ca", type=Path, metavar="FILE", help="authority of the control plane's certificate, PEM")
    add(
        "--join-token",
        metavar="TOKEN",
        help="for the certificate of this node, once, by roundhouse agent token; also ROUNDHOUSE_JOIN_TOKEN",
    )
    add("--join-token-file", type=Path, metavar="FILE", help="the same, in a file")
    add("--insecure", action="store_true", help="allow plaintext to the control plane and to engines beyond this host")
    add(
        "--stop-engines-on-exit",
        type=float,
        metavar="SECONDS",
        help="drain and stop engines at the end",
    )
    add("--log-level", choices=logs.LEVELS, default="info", help="default: %(default)s")
    return parser


def _given_token(token: str | None, file: Path | None, environ: Mapping[str, str]) -> str | None:
    if token is not None and file is not None:
        raise Usage("--join-token and --join-token-file say the same: give one of them")
    if file is not None:
        token = read_token(file)
    if token is None:
        token = environ.get(_JOIN_TOKEN)
    return (token or "").strip() or None


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - works without a home too
    return Path(base) / "roundhouse/nodeagent"


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and 0 < len(key) <= _LONGEST_KEY and len(value) <= _LONGEST_VALUE):
        raise Usage(
            f'--label is "{text}": write KEY=VALUE, with at most {_LONGEST_KEY} and {_LONGEST_VALUE} characters'
        )
    return key, value


def _taint(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not (0 < len(key) <= _LONGEST_KEY and len(value) <= _LONGEST_VALUE):
        raise Usage(
            f'--taint is "{text}": write KEY or KEY=VALUE, with at most {_LONGEST_KEY} and {_LONGEST_VALUE} characters'
        )
    return key, value


def _ports(text: str) -> tuple[int, int]:
    found = _PORTS.match(text)
    if found is None or not 0 < int(found[1]) <= int(found[2]) < 65536:
        raise Usage(f'--engine-ports is "{text}": write LOW-HIGH with 1 <= LOW <= HIGH <= 65535')
    return int(found[1]), int(found[2])
