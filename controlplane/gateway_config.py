"""What a gateway in a process of its own is started with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.admission_config import add_admission, admission_of
from controlplane.config import ROLES, Parser, add_listening, listen_of
from controlplane.model import AdmissionSettings
from roundhouse.kit import logs
from roundhouse.kit.authorized import check_token, read_token
from roundhouse.kit.config import setting
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen
from roundhouse.kit.tls import is_loopback

DEFAULT_LISTEN = "127.0.0.1:50051"  # beside a control plane on the same machine
MOST_GATEWAYS = 256
_TOKEN, _TOKEN_FILE = "TOKEN", "TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The settings of a gateway, checked."""

    listen: Listen
    control_plane: str
    tls_ca: Path | None = None
    token: str | None = field(default=None, repr=False)  # what the control plane knows this gateway by
    address_file: Path | None = None
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    stop_grace_s: float = 2.0  # for calls that run when it is told to stop
    first_grace_s: float = 5.0  # for calls that come before the control plane has told what there is
    log_level: logs.Level = "info"
    gateway_count: int = 1  # processes behind one port
    shares_port: bool = False  # this is one of them


def wants_gateway(arguments: Sequence[str]) -> bool:
    """Tells whether it is a gateway alone that is to be started."""
    parser = Parser(add_help=False)
    parser.add_argument("--role")
    try:
        return bool(parser.parse_known_args(arguments)[0].role == "gateway")
    except Usage:  # what is wrong is said by the parser that knows all
        return False


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> GatewayConfig:
    """Returns the settings; raises Usage with one readable line for each kind of mistake."""
    parsed = _parser().parse_args(arguments)
    listen = listen_of(parsed)
    host = Listen.parse(parsed.control_plane).host
    if not (is_loopback(host) or parsed.tls_ca or parsed.insecure):
        raise Usage(
            f"refusing to be told the keys of engines by {host} in the clear: give --tls-ca, "
            "or say --insecure if the network is trusted"
        )
    if not 1 <= parsed.gateways <= MOST_GATEWAYS:
        raise Usage(f"--gateways is {parsed.gateways}: use 1 to {MOST_GATEWAYS}; one for each core is many")
    token = _token(parsed.token_file, environ)
    if token is not None:
        check_token(token, parsed.control_plane, has_tls=parsed.tls_ca is not None)
        if not listen.is_private:
            raise Usage(
                "a gateway that has a token asks its callers for theirs, which others would read on their way: give "
                "--tls-cert and --tls-key"
            )
    return GatewayConfig(
        listen=listen,
        token=token,
        control_plane=parsed.control_plane,
        tls_ca=parsed.tls_ca,
        address_file=parsed.address_file,
        admission=admission_of(parsed, environ),
        log_level=parsed.log_level,
        gateway_count=parsed.gateways,
        shares_port=parsed.shares_port,
    )


def _token(file: Path | None, environ: Mapping[str, str]) -> str | None:
    given = None if file else setting(environ, _TOKEN)
    if given is not None:
        return given[1]
    named = None if file else setting(environ, _TOKEN_FILE)
    file = Path(named[1]) if named else file
    return None if file is None else read_token(file)


def _parser() -> Parser:
    parser = Parser(
        prog="controlplane --role gateway",
        description="Relays requests to engines, also while the control plane is away; passes all else on to it.",
    )
    add = parser.add_argument
    add("--role", choices=ROLES, help="gateway")
    add("--control-plane", required=True, metavar="HOST:PORT", help="address of the control plane")
    add("--tls-ca", type=Path, metavar="FILE", help="authority of the control plane's certificate, PEM")
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds a token of an operator, where the control plane asks for one; also ROUNDHOUSE_TOKEN, "
        "ROUNDHOUSE_TOKEN_FILE",
    )
    add_listening(
        parser, DEFAULT_LISTEN, insecure="allow plaintext from the control plane and to other hosts than this one"
    )
    add(
        "--address-file", type=Path, metavar="FILE", help="where to write HOST:PORT while it serves; useful with port 0"
    )
    add_admission(parser)
    add(
        "--gateways",
        type=int,
        default=1,
        metavar="N",
        help="so many processes behind the port, each started again when it dies; default: %(default)s",
    )
    add("--shares-port", action="store_true", help=argparse.SUPPRESS)  # of those, from whoever starts them
    add("--log-level", choices=logs.LEVELS, default="info", help="default: %(default)s")
    return parser
