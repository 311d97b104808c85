"""What is said of certificates that do not do."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from roundhouse.client import Client, NotConnected
from roundhouse.kit.errors import Usage
from roundhouse.kit.tls import ServerTls, channel_credentials
from tests.support.scripted_cluster import scripted_cluster
from tests.unit.cli.conftest import Cli, Ended

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates of this test")

CURVE = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
NAMES = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]


def certificate(folder: Path, name: str) -> ServerTls:
    """Returns a self-signed certificate for this machine, which is its own authority."""
    key, pem = folder / f"{name}.key", folder / f"{name}.crt"
    command = ["openssl", "req", "-x509", "-newkey", *CURVE, "-nodes", "-days", "1", *NAMES]
    subprocess.run([*command, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    return ServerTls(pem, key)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return certificate(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return certificate(tmp_path_factory.mktemp("tls"), "theirs")


async def listed(address: str, *options: str) -> Ended:
    """Runs `roundhouse list` beside the cluster on this loop."""
    return await asyncio.to_thread(Cli(address), *options, "list")


async def test_a_server_of_another_authority_is_one_line_that_names_the_flag(tls: ServerTls, others: ServerTls) -> None:
    async with scripted_cluster(tls=tls) as (serving, _, _):
        trusted = await listed(serving.address, "--tls-ca", str(tls.certificate))
        refused = await listed(serving.address, "--tls-ca", str(others.certificate))
    assert (trusted.status, trusted.err) == (0, "")
    assert refused.status == 3
    [line] = refused.err.splitlines()
    assert line.startswith(f"roundhouse: {serving.address} does not answer (the TLS handshake failed, check --tls-ca)")
    assert "roundhouse up" not in line


async def test_a_server_in_the_clear_is_no_server_that_answers_ok(tls: ServerTls) -> None:
    async with scripted_cluster() as (serving, _, _), Client(serving.address, ca=tls.certificate) as client:
        with pytest.raises(NotConnected, match=r"\(the TLS handshake failed, check --tls-ca\)"):
            await client.nodes.list()
        with pytest.raises(NotConnected, match=r"\(the TLS handshake failed, check --tls-ca\)"):
            await client.chat("demo", "hi").text()


BROKEN = {
    "nothing": b"",
    "prose": b"this is the certificate\n",
    "torn": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_is_no_certificate_is_refused_by_name(tmp_path: Path, tls: ServerTls, content: bytes) -> None:
    (tmp_path / "bad.pem").write_bytes(content)
    bad = tmp_path / "bad.pem"
    for use in (
        lambda: channel_credentials(bad),
        ServerTls(bad, tls.key).credentials,
        ServerTls(tls.certificate, tls.key, client_ca=bad).credentials,
    ):
        with pytest.raises(Usage, match=r"bad\.pem holds no certificate in PEM: give the file that begins -----BEGIN"):
            use()


def test_a_key_that_is_none_or_of_another_certificate_is_refused_by_name(tls: ServerTls, others: ServerTls) -> None:
    with pytest.raises(Usage, match=r"ours\.crt holds no private key in PEM"):
        ServerTls(tls.certificate, tls.certificate).credentials()
    with pytest.raises(Usage, match=r"theirs\.key is not the key of .*ours\.crt"):
        ServerTls(tls.certificate, others.key).credentials()


def test_a_bundle_with_words_between_its_certificates_is_taken(tmp_path: Path, tls: ServerTls) -> None:
    one = tls.certificate.read_bytes()
    (tmp_path / "bundle.pem").write_bytes("# Autorité\n".encode() + one + b"\n# another\n" + one)
    channel_credentials(tmp_path / "bundle.pem")
