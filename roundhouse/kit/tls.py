"""Who may listen where, and with which certificate."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

from roundhouse.kit.errors import Usage


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Certificate chain and private key of a server, as PEM files.

    With `client_ca`, clients must show a certificate of that authority.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Reads the files; raises Usage if one cannot be read."""
        authority = None if self.client_ca is None else _read(self.client_ca)
        pair = (_read(self.key), _read(self.certificate))
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


def channel_credentials(ca: Path) -> grpc.ChannelCredentials:
    """Returns what a client needs to trust servers of this authority; raises Usage if the file cannot be read."""
    return grpc.ssl_channel_credentials(root_certificates=_read(ca))


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach `host`."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, has_tls: bool, insecure: bool) -> None:
    """Raises Usage if others could reach `host` in the clear and nobody said that this is meant."""
    if not (has_tls or insecure or is_loopback(host)):
        raise Usage(
            f"refusing to listen on {host} without TLS: give --tls-cert and --tls-key, listen on 127.0.0.1, "
            "or say --insecure if the network is trusted"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}: check the path and its permissions") from error
