"""`roundhouse certs init`: an authority that stays, certificates that are renewed."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from roundhouse.cli.certs import certs
from roundhouse.kit.errors import Usage
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.tls import ServerTls


def init(directory: Path, *options: str) -> Result:
    return CliRunner().invoke(certs, ["init", str(directory), *options], catch_exceptions=False)


def contents(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


def test_keys_are_for_their_owner_alone_and_what_to_do_next_is_said(tmp_path: Path) -> None:
    ended = init(tmp_path / "certs", "--host", "10.0.0.1", "--host", "head.example.com")
    assert ended.exit_code == 0
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "certs").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}
    assert "--listen 10.0.0.1:50050 --certs" in ended.output
    assert "PRIVATE" not in ended.output


def test_once_more_the_authority_stays_and_the_server_has_a_new_certificate(tmp_path: Path) -> None:
    init(tmp_path)
    first = contents(tmp_path)
    init(tmp_path, "--host", "10.0.0.1")
    second = contents(tmp_path)
    assert {name for name in first if first[name] != second[name]} == {"server.pem", "server.key"}


async def test_a_client_that_trusts_the_authority_takes_the_server_for_its_names_and_no_others(tmp_path: Path) -> None:
    init(tmp_path, "--host", "head.example.com")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    def shake(name: str) -> None:
        """Shakes hands in memory, as a client that calls `name`."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            context.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        while ends:
            for each in tuple(ends):
                try:
                    each.do_handshake()
                    ends.remove(each)
                except ssl.SSLWantReadError:
                    pass

    for name in ("head.example.com", "localhost", "127.0.0.1", "::1"):
        shake(name)
    for name in ("other.example.com", "10.0.0.1"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(name)
    async with serve(Listen("127.0.0.1", 0, ServerTls(tmp_path / "server.pem", tmp_path / "server.key")), []):
        pass


@pytest.mark.parametrize("host", ["", "Zürich"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    ended = init(tmp_path / "certs", "--host", host)
    assert ended.exit_code == 2
    assert "--host is no name of a host" in ended.output


def test_an_authority_without_its_key_is_refused_by_name(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(Usage, match=r"cannot read .*ca\.key"):
        init(tmp_path)
    (tmp_path / "ca.key").write_bytes((tmp_path / "server.key").read_bytes())
    with pytest.raises(Usage, match=r"ca\.key is not the key of .*ca\.pem"):
        init(tmp_path)


def test_a_directory_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Usage, match="cannot be written"):
        init(tmp_path / "file/certs")
