"""What the control plane is started with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from controlplane.admission_config import add_admission, admission_of
from controlplane.model import AdmissionSettings
from controlplane.routing_policies import (
    DEFAULT_ROUTING_POLICY,
    ROUTING_POLICIES,
    RoutingPolicy,
    canonical_routing_policy,
)
from roundhouse.kit import logs
from roundhouse.kit.config import parse_bool, setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen
from roundhouse.kit.tls import ServerTls, check_exposure, is_loopback

ROLES = ("all", "gateway")
STORE = "store.sqlite"  # in the state directory
DEFAULT_LISTEN = "127.0.0.1:50050"
DEFAULT_LEASE_S = 7.0  # three reports may be lost, and after a cut an agent is back within 4 s
_SHORTEST_LEASE_S, _LONGEST_LEASE_S = 1.0, 3600.0
DEFAULT_CERTIFICATE_DAYS = 30.0  # agents renew theirs after two thirds, so one may be away for ten days
_SHORTEST_DAYS, _LONGEST_DAYS = 1 / 24, 3650.0
_DAY_S = 24 * 3600.0
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PlacementDefaults:
    """What holds for deployments that do not say."""

    strategy: str
    allows_sharing: bool = True


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How callers are asked who they are."""

    agents: Listen  # where node agents come, and certificates are asked for
    certs: Path | None = None  # a directory of `roundhouse certs init`, with the authority of nodes; None: our own
    certificate_life_s: float = DEFAULT_CERTIFICATE_DAYS * _DAY_S


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a control plane, checked."""

    listen: Listen
    state_dir: Path
    placement: PlacementDefaults
    secrets_key: Path | None = None  # None: a file in the state directory
    routing_policy: RoutingPolicy = DEFAULT_ROUTING_POLICY  # of deployments that do not say
    auth: AuthSettings | None = None  # None: everybody who reaches it may do everything
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    node_lease_s: float = DEFAULT_LEASE_S
    stop_grace_s: float = 2.0  # for calls that run when it is told to stop
    log_level: logs.Level = "info"


class Parser(argparse.ArgumentParser):
    """Reads arguments, and raises Usage for what cannot be read."""

    def error(self, message: str) -> NoReturn:
        """Raises Usage, which is printed like every other refusal to start."""
        raise Usage(f"{message}: see --help")


def parse(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    strategies: Sequence[str],
    strategy_of: Callable[[str], str | None],
) -> Config:
    """Returns the settings; raises Usage with one readable line for each kind of mistake.

    strategies: the names of those that exist, the default first. strategy_of: the one that a spelling means.
    """
    parsed = _parser(environ).parse_args(arguments)
    if parsed.certs is not None and parsed.tls_cert is not None:
        raise Usage("--certs and --tls-cert say the same: give one of them")
    listen = listen_of(parsed, _tls(parsed))
    if not _SHORTEST_LEASE_S <= parsed.node_lease <= _LONGEST_LEASE_S:
        limits = f"{_SHORTEST_LEASE_S:g} to {_LONGEST_LEASE_S:g}"
        raise Usage(f"--node-lease is {parsed.node_lease:g}: use seconds from {limits}")
    return Config(
        listen=listen,
        state_dir=parsed.state_dir.absolute(),
        placement=PlacementDefaults(_strategy(environ, strategies, strategy_of), _allows_sharing(environ)),
        secrets_key=None if parsed.secrets_key is None else parsed.secrets_key.absolute(),
        routing_policy=_routing_policy(environ),
        auth=_auth(parsed, listen),
        admission=admission_of(parsed, environ),
        node_lease_s=parsed.node_lease,
        log_level=parsed.log_level,
    )


def add_listening(parser: argparse.ArgumentParser, default: str, *, insecure: str) -> None:
    """Adds the arguments that `listen_of` reads. insecure: what `--insecure` allows."""
    add = parser.add_argument
    add("--listen", default=default, metavar="HOST:PORT", help="port 0 takes any; default: %(default)s")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain of this server, PEM")
    add("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    add("--insecure", action="store_true", help=insecure)


def listen_of(parsed: argparse.Namespace, tls: ServerTls | None = None) -> Listen:
    """Returns where to listen; raises Usage for half of TLS, and for exposure without it.

    tls: what holds if neither certificate nor key is named.
    """
    if (parsed.tls_cert is None) != (parsed.tls_key is None):
        raise Usage("--tls-cert and --tls-key belong together: give both")
    tls = tls if parsed.tls_cert is None else ServerTls(parsed.tls_cert, parsed.tls_key)
    listen = Listen.parse(parsed.listen, tls=tls, insecure=parsed.insecure)
    check_exposure(listen.host, has_tls=tls is not None, insecure=parsed.insecure)
    return listen


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = Parser(prog="controlplane", description="Decides what runs where, and relays requests to it.")
    add = parser.add_argument
    add(
        "--role",
        choices=ROLES,
        default=ROLES[0],
        help="`gateway` relays requests alone, beside a control plane: see --role gateway --help; default: %(default)s",
    )
    add_listening(parser, DEFAULT_LISTEN, insecure="allow other hosts than this one to be served without TLS")
    add("--state-dir", type=Path, default=default_state_dir(environ), metavar="DIR", help="default: %(default)s")
    add(
        "--secrets-key",
        type=Path,
        metavar="FILE",
        help="the key that secrets of deployments are sealed with, made if it is not there; "
        "default: secrets.key in the state directory",
    )
    add(
        "--certs",
        type=Path,
        metavar="DIR",
        help="of roundhouse certs init: certificate, key, authority of nodes",
    )
    add(
        "--auth",
        action=argparse.BooleanOptionalAction,
        help="ask callers for tokens, and agents for certificates; default: where other hosts are served with TLS",
    )
    add(
        "--agent-listen",
        metavar="HOST:PORT",
        help="where agents show their certificates; default: the next port after that of --listen",
    )
    add(
        "--node-certificate-days",
        type=float,
        default=DEFAULT_CERTIFICATE_DAYS,
        metavar="DAYS",
        help="how long the certificate of a node is good; default: %(default)g",
    )
    add("--node-lease", type=float, default=DEFAULT_LEASE_S, metavar="SECONDS", help="default: %(default)s")
    add_admission(parser)
    add("--log-level", choices=logs.LEVELS, default="info", help="default: %(default)s")
    return parser


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Returns where a control plane keeps its state unless it is told."""
    base = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - works without a home
    return Path(base) / "roundhouse/controlplane"


def _tls(parsed: argparse.Namespace) -> ServerTls | None:
    return None if parsed.certs is None else ServerTls(parsed.certs / "server.pem", parsed.certs / "server.key")


def _auth(parsed: argparse.Namespace, listen: Listen) -> AuthSettings | None:
    if parsed.auth and listen.tls is None:
        raise Usage(
            "--auth needs TLS, which certificates of agents and tokens go over: give --certs, or --tls-cert and "
            "--tls-key"
        )
    is_on = listen.tls is not None and (parsed.auth or (parsed.auth is None and not is_loopback(listen.host)))
    if not is_on:
        if parsed.agent_listen is not None:
            raise Usage("--agent-listen is for agents with certificates, which nobody asks for: give --auth as well")
        return None
    if not _SHORTEST_DAYS <= parsed.node_certificate_days <= _LONGEST_DAYS:
        limits = f"{_SHORTEST_DAYS:.2g} to {_LONGEST_DAYS:g}"
        raise Usage(f"--node-certificate-days is {parsed.node_certificate_days:g}: use {limits}")
    if parsed.agent_listen is not None:
        agents = Listen.parse(parsed.agent_listen, tls=listen.tls)
    elif listen.port < _LAST_PORT:
        agents = Listen(listen.host, listen.port and listen.port + 1, listen.tls)
    else:
        raise Usage(f"there is no port after {listen.port} for agents: give --agent-listen")
    certs = None if parsed.certs is None else parsed.certs.absolute()
    return AuthSettings(agents, certs, parsed.node_certificate_days * _DAY_S)


def _strategy(environ: Mapping[str, str], strategies: Sequence[str], strategy_of: Callable[[str], str | None]) -> str:
    found = setting(environ, "LAUNCH_STRATEGY")
    if found is None:
        return strategies[0]
    variable, spelling = found
    strategy = strategy_of(spelling)
    if strategy is None:
        raise Usage(f'{variable} is "{spelling}", which is unknown: use one of {", ".join(strategies)}')
    return strategy


def _routing_policy(environ: Mapping[str, str]) -> RoutingPolicy:
    found = setting(environ, "ROUTING_POLICY")
    if found is None:
        return DEFAULT_ROUTING_POLICY
    variable, spelling = found
    policy = canonical_routing_policy(spelling)
    if policy is None:
        raise Usage(f'{variable} is "{spelling}", which is unknown: use one of {", ".join(ROUTING_POLICIES)}')
    return policy


def _allows_sharing(environ: Mapping[str, str]) -> bool:
    found = setting(environ, "ALLOW_MULTI_REPLICA_PER_GPU")
    return True if found is None else parse_bool(found[1], found[0])
