"""The settings of the control plane: defaults, the environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.config import Config, parse
from controlplane.placement.strategies import STRATEGIES, canonical_strategy
from roundhouse.kit.errors import Usage

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


MISTAKES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "unknown option": (("--bogus",), {}, "--bogus"),
    "no port": (("--listen", "127.0.0.1"), {}, "HOST:PORT"),
    "exposed": (("--listen", "0.0.0.0:0"), {}, "without TLS"),
    "half of TLS": (("--tls-cert", "x.pem"), {}, "belong together"),
    "lease": (("--node-lease", "0"), {}, "--node-lease"),
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
