"""The settings of a gateway in a process of its own: what need be said, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.gateway_config import parse, wants_gateway
from roundhouse.kit.errors import Usage

ROLE = ("--role", "gateway")
HERE = (*ROLE, "--control-plane", "127.0.0.1:50050")


@pytest.mark.parametrize(
    ("arguments", "wants"),
    [
        ((), False),
        (("--role", "all"), False),
        (ROLE, True),
        (("--listen", "127.0.0.1:0", "--role=gateway", "--log-level", "debug"), True),
        (("--role",), False),
        (("--role", "other"), False),
        (("--state-dir", "gateway"), False),
    ],
)
def test_a_gateway_is_wanted_if_its_role_is_named(arguments: tuple[str, ...], wants: bool) -> None:
    assert wants_gateway(arguments) is wants


def test_only_the_control_plane_need_be_said() -> None:
    config = parse(HERE, {})
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 50051)
    assert (config.control_plane, config.tls_ca, config.address_file) == ("127.0.0.1:50050", None, None)


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no control plane": (ROLE, "--control-plane"),
    "no port": ((*ROLE, "--control-plane", "127.0.0.1"), "HOST:PORT"),
    "keys in the clear": ((*ROLE, "--control-plane", "10.0.0.1:50050"), "--tls-ca"),
    "exposed": ((*HERE, "--listen", "0.0.0.0:0"), "without TLS"),
    "half of TLS": ((*HERE, "--tls-cert", "x.pem"), "belong together"),
    "what a control plane alone has": ((*HERE, "--state-dir", "x"), "--state-dir"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_readable_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(Usage) as error:
        parse(arguments, {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_host_is_followed_with_tls_or_on_purpose() -> None:
    there = (*ROLE, "--control-plane", "10.0.0.1:50050")
    assert parse((*there, "--tls-ca", "ca.pem"), {}).tls_ca == Path("ca.pem")
    assert parse((*there, "--insecure"), {}).control_plane == "10.0.0.1:50050"


def test_a_token_is_read_from_what_is_nearest(tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.write_text("rha_near\n")
    far.write_text("rha_far\n")
    environ = {"ROUNDHOUSE_TOKEN": "rha_env", "ROUNDHOUSE_TOKEN_FILE": str(far)}
    assert parse((*HERE, "--token-file", str(near)), environ).token == "rha_near"
    config = parse(HERE, environ)
    assert (config.token, "rha_env" in repr(config)) == ("rha_env", False)
    assert parse(HERE, {"ROUNDHOUSE_TOKEN_FILE": str(far)}).token == "rha_far"
    assert parse(HERE, {}).token is None


TOKEN_MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a token in the clear": (
        (*ROLE, "--control-plane", "10.0.0.1:50050", "--insecure"),
        "refusing to send a token to 10.0.0.1 in the clear",
    ),
    "tokens of callers in the clear": (
        (*HERE, "--listen", "0.0.0.0:0", "--insecure"),
        "asks its callers for theirs, which others would read on their way: give --tls-cert and --tls-key",
    ),
    "no such file": ((*HERE, "--token-file", "/nowhere"), "the token /nowhere cannot be read"),
}


@pytest.mark.parametrize(("arguments", "message"), TOKEN_MISTAKES.values(), ids=TOKEN_MISTAKES)
def test_no_token_is_read_by_others(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(Usage) as error:
        parse(arguments, {"ROUNDHOUSE_TOKEN": "rha_secret"})
    assert message in str(error.value)
    assert "rha_secret" not in str(error.value)


def test_one_gateway_is_started_unless_more_are_asked_for() -> None:
    assert (parse(HERE, {}).gateway_count, parse(HERE, {}).shares_port) == (1, False)
    assert parse((*HERE, "--gateways", "4"), {}).gateway_count == 4


@pytest.mark.parametrize("count", ["0", "-1", "257", "many"])
def test_a_number_of_gateways_that_makes_no_sense_is_refused(count: str) -> None:
    with pytest.raises(Usage, match="--gateways"):
        parse((*HERE, "--gateways", count), {})
