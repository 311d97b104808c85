"""`roundhouse certs`: certificates for those who have no authority of their own."""

from __future__ import annotations

import time
from pathlib import Path

import click

from roundhouse.cli.output import console
from roundhouse.kit.certificates import Authority
from roundhouse.kit.errors import Usage
from roundhouse.kit.files import write_atomically
from roundhouse.kit.tls import is_loopback

_CA, _CA_KEY, _CERTIFICATE, _KEY = "ca.pem", "ca.key", "server.pem", "server.key"
_DAY_S = 24 * 3600.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@click.group(short_help="Makes certificates for the control plane.")
def certs() -> None:
    """Certificates for the control plane and its agents."""


@certs.command(short_help="Makes an authority and a server's certificate.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--host", "hosts", metavar="HOST", multiple=True,
    help="A name or address that the control plane is called by; may be repeated. Those of this machine are added.",
)  # fmt: skip
@click.option(
    "--days", metavar="DAYS", type=click.FloatRange(min=0.01, max=3650), default=825.0, show_default=True,
    help="How long the server's certificate is good; the authority is for ten years.",
)  # fmt: skip
def init(directory: Path, hosts: tuple[str, ...], days: float) -> None:
    """Makes an authority in DIRECTORY, and a certificate for the control plane, with their keys.

    An authority that is there stays, and signs a new certificate for the control plane: run it again before the old one
    ends, or for other hosts. `ca.pem` is what agents and clients trust; keep `ca.key` to yourself.
    """
    now_s = time.time()
    certificate, key = directory / _CA, directory / _CA_KEY
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if certificate.exists():
            authority = Authority.load(certificate, key)
        else:
            authority = Authority.make("roundhouse", now_s)
            authority.save(certificate, key)
        if not all(hosts):
            raise ValueError("it is empty")
        names = list(dict.fromkeys((*hosts, *_LOOPBACK)))
        pair = authority.server(names, now_s, days * _DAY_S)
        write_atomically(directory / _KEY, pair.key, mode=0o600)
        write_atomically(directory / _CERTIFICATE, pair.certificate)
    except OSError as error:
        raise Usage(f"{directory} cannot be written: {error.strerror}: choose another directory") from error
    except ValueError as error:
        raise click.UsageError(f"--host is no name of a host: {error}") from error
    host = next((each for each in hosts if not is_loopback(each)), hosts[0] if hosts else "127.0.0.1")
    out = console()
    out.print(f"{directory} has an authority, and a certificate for {', '.join(names)}")
    auth = " --auth" if is_loopback(host) else ""
    out.print(f"start the control plane:  python -m controlplane --listen {host}:50050 --certs {directory}{auth}")
    out.print(f"give every agent and client a copy of {certificate}")
