"""Who may listen where, and with which certificate."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
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
        """Reads the files; raises Usage if one cannot be read or is not what it should be."""
        authority = None if self.client_ca is None else _certificates(self.client_ca)
        pair = (_key(self.key), _certificates(self.certificate))
        _check_pair(self.certificate, self.key)
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Certificate chain and private key of a client, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def channel_credentials(ca: Path, client: ClientTls | None = None) -> grpc.ChannelCredentials:
    """Returns what a client needs to trust servers of this authority, and to show who it is.

    Raises Usage if the file holds no certificate.
    """
    key, chain = (None, None) if client is None else (client.key, client.certificate)
    return grpc.ssl_channel_credentials(_certificates(ca), key, chain)


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


# gRPC takes any bytes, and later says only that a handshake failed or that a port cannot be had. So they are read here.


def _certificates(path: Path) -> bytes:
    pem = _read(path)
    text = pem.decode("ascii", "ignore")  # bundles have comments in every language
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ValueError, ssl.SSLError) as error:
        raise Usage(f"{path} holds no certificate in PEM: give the file that begins -----BEGIN CERTIFICATE") from error
    return pem


def _key(path: Path) -> bytes:
    pem = _read(path)
    if b"PRIVATE KEY-----" not in pem:
        raise Usage(f"{path} holds no private key in PEM: give the file that begins -----BEGIN PRIVATE KEY")
    return pem


def _check_pair(certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # how strong a key has to be is not for us to say
    try:
        context.load_cert_chain(certificate, key, password="")  # with none at all it would ask at the terminal
    except ssl.SSLError as error:
        raise Usage(f"{key} is not the key of {certificate}, or has a password: give the one without") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}: check the path and its permissions") from error
