"""The settings of the control plane: defaults, the environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.config import Config, parse
from controlplane.placement.strategies import STRATEGIES, canonical_strategy
from roundhouse.kit.errors import Usage
from roundhouse.kit.tls import ServerTls

HOME = {"HOME": "/home/me", "XDG_STATE_HOME": "/state"}


def read(*arguments: str, **environ: str) -> Config:
    return parse(arguments, {**HOME, **environ}, strategies=list(STRATEGIES), strategy_of=canonical_strategy)


def test_nothing_need_be_said() -> None:
    config = read()
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 50050)
    assert config.state_dir == Path("/state/roundhouse/controlplane")
    assert (config.placement.strategy, config.placement.allows_sharing) == ("idle_first", True)
    assert (config.node_lease_s, config.log_level) == (7.0, "info")


def test_a_relative_state_directory_is_made_absolute() -> None:
    assert read("--state-dir", "here").state_dir == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("environ", "allows_sharing"),
    [
        ({"ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU": "0"}, False),
        ({"XINFERENCE_ALLOW_MULTI_REPLICA_PER_GPU": "0"}, False),
        ({"ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU": "1", "XINFERENCE_ALLOW_MULTI_REPLICA_PER_GPU": "0"}, True),
        ({"ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU": ""}, True),
    ],
)
def test_sharing_is_allowed_by_the_environment(environ: dict[str, str], allows_sharing: bool) -> None:
    assert read(**environ).placement.allows_sharing is allows_sharing


@pytest.mark.parametrize("spelling", ["idle_first", "idle-first", "IDLE_FIRST_LAUNCH_STRATEGY", "idlefirst"])
def test_a_strategy_may_be_spelled_as_xinference_spells_it(spelling: str) -> None:
    assert read(XINFERENCE_LAUNCH_STRATEGY=spelling).placement.strategy == "idle_first"


@pytest.mark.parametrize(
    ("environ", "policy"), [({}, "power_of_two"), ({"ROUNDHOUSE_ROUTING_POLICY": "Round-Robin"}, "round_robin")]
)
def test_the_environment_says_how_requests_are_routed_where_deployments_do_not(
    environ: dict[str, str], policy: str
) -> None:
    assert read(**environ).routing_policy == policy


MISTAKES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "unknown option": (("--bogus",), {}, "--bogus"),
    "no port": (("--listen", "127.0.0.1"), {}, "HOST:PORT"),
    "exposed": (("--listen", "0.0.0.0:0"), {}, "without TLS"),
    "half of TLS": (("--tls-cert", "x.pem"), {}, "belong together"),
    "certificates said twice": (("--certs", "d", "--tls-cert", "c", "--tls-key", "k"), {}, "give one of them"),
    "auth in the clear": (("--auth",), {}, "--auth needs TLS"),
    "auth in the clear on purpose": (("--listen", "0.0.0.0:1", "--insecure", "--auth"), {}, "--auth needs TLS"),
    "agents nobody asks": (("--agent-listen", "127.0.0.1:1"), {}, "give --auth as well"),
    "no next port": (("--listen", "0.0.0.0:65535", "--certs", "d"), {}, "give --agent-listen"),
    "certificates of a minute": (
        ("--listen", "0.0.0.0:1", "--certs", "d", "--node-certificate-days", "0.001"),
        {},
        "days",
    ),
    "lease": (("--node-lease", "0"), {}, "--node-lease"),
    "routing": ((), {"ROUNDHOUSE_ROUTING_POLICY": "luck"}, 'ROUNDHOUSE_ROUTING_POLICY is "luck"'),
    "strategy": ((), {"ROUNDHOUSE_LAUNCH_STRATEGY": "lucky"}, 'ROUNDHOUSE_LAUNCH_STRATEGY is "lucky"'),
    "alias of strategy": ((), {"XINFERENCE_LAUNCH_STRATEGY": "lucky"}, 'XINFERENCE_LAUNCH_STRATEGY is "lucky"'),
    "sharing": ((), {"ROUNDHOUSE_ALLOW_MULTI_REPLICA_PER_GPU": "maybe"}, "use 1 or 0"),
}


@pytest.mark.parametrize(("arguments", "environ", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_readable_line(arguments: tuple[str, ...], environ: dict[str, str], message: str) -> None:
    with pytest.raises(Usage) as error:
        read(*arguments, **environ)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_exposed_may_be_so_with_tls_or_on_purpose() -> None:
    assert read("--listen", "0.0.0.0:1", "--insecure").listen.insecure
    assert read("--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k").listen.tls is not None


TLS = ("--tls-cert", "c", "--tls-key", "k")


@pytest.mark.parametrize(
    ("arguments", "is_on"),
    [
        ((), False),
        (TLS, False),
        ((*TLS, "--auth"), True),
        (("--listen", "0.0.0.0:1", "--insecure"), False),
        (("--listen", "0.0.0.0:1", *TLS), True),
        (("--listen", "0.0.0.0:1", "--certs", "d"), True),
        (("--listen", "0.0.0.0:1", *TLS, "--no-auth"), False),
    ],
    ids=["one machine", "one machine, TLS", "asked for", "insecure", "exposed", "exposed, by a directory", "declined"],
)
def test_callers_are_asked_who_they_are_where_others_are_served_with_tls(
    arguments: tuple[str, ...], is_on: bool
) -> None:
    assert (read(*arguments).auth is not None) is is_on


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (("--listen", "0.0.0.0:50050"), ("0.0.0.0", 50051)),
        (("--listen", "0.0.0.0:0"), ("0.0.0.0", 0)),
        (("--listen", "0.0.0.0:50050", "--agent-listen", "10.0.0.1:7"), ("10.0.0.1", 7)),
    ],
)
def test_agents_have_the_next_port_unless_another_is_given(
    arguments: tuple[str, ...], address: tuple[str, int]
) -> None:
    auth = read(*arguments, "--certs", "d").auth
    assert auth is not None
    assert (auth.agents.host, auth.agents.port) == address


def test_a_directory_of_certificates_has_them_all() -> None:
    config = read("--listen", "0.0.0.0:1", "--certs", "d", "--node-certificate-days", "2")
    assert config.listen.tls == ServerTls(Path("d/server.pem"), Path("d/server.key"))
    assert config.auth is not None
    assert (config.auth.certs, config.auth.certificate_life_s) == (Path.cwd() / "d", 2 * 86400.0)
