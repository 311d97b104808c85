"""Weights, quotas and bounds of queues: by flag, by environment, and what is refused; the same for both roles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane import config, gateway_config
from controlplane.model import AdmissionSettings, Quota
from controlplane.placement.strategies import STRATEGIES, canonical_strategy
from roundhouse.kit.errors import Usage

Read = Callable[..., AdmissionSettings]


def of_control_plane(*arguments: str, **environ: str) -> AdmissionSettings:
    names = list(STRATEGIES)
    return config.parse(arguments, environ, strategies=names, strategy_of=canonical_strategy).admission


def of_gateway(*arguments: str, **environ: str) -> AdmissionSettings:
    return gateway_config.parse(("--control-plane", "127.0.0.1:1", *arguments), environ).admission


@pytest.fixture(params=[of_control_plane, of_gateway], ids=["control plane", "gateway"])
def read(request: pytest.FixtureRequest) -> Read:
    found: Read = request.param
    return found


def test_nothing_need_be_said(read: Read) -> None:
    settings = read()
    assert settings == AdmissionSettings()
    assert (settings.weight_of("search"), settings.quota_of("search")) == (1.0, None)


def test_what_is_said_of_a_tenant_holds_for_it_and_the_star_for_all_others(read: Read) -> None:
    settings = read(
        *("--tenant-weight", "search=2", "--tenant-weight", "*=0.5"),
        *("--tenant-quota", "search=10,200000", "--tenant-quota", "batch=,5e4", "--tenant-quota", "*=2.5,"),
        *("--queue-requests", "10", "--queue-tokens", "5000"),
    )
    assert [settings.weight_of(each) for each in ("search", "other", "")] == [2.0, 0.5, 0.5]
    assert settings.quota_of("search") == Quota(10.0, 200_000.0)
    assert settings.quota_of("batch") == Quota(None, 50_000.0)
    assert settings.quota_of("") == Quota(2.5, None)
    assert (settings.queue_requests, settings.queue_tokens) == (10, 5000)


def test_the_environment_says_it_too_and_a_flag_goes_before_it(read: Read) -> None:
    settings = read(
        *("--tenant-weight", "a=3", "--queue-requests", "7"),
        ROUNDHOUSE_TENANT_WEIGHTS="a=2 b=4",
        ROUNDHOUSE_TENANT_QUOTAS="a=1,60",
        ROUNDHOUSE_QUEUE_REQUESTS="5",
        ROUNDHOUSE_QUEUE_TOKENS="6",
    )
    assert settings.weights == {"a": 3.0, "b": 4.0}
    assert settings.quotas == {"a": Quota(1.0, 60.0)}
    assert (settings.queue_requests, settings.queue_tokens) == (7, 6)


MISTAKES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no tenant": (("--tenant-weight", "2"), {}, "names no tenant"),
    "not an id": (("--tenant-weight", "A B=2"), {}, "names no tenant"),
    "no weight": (("--tenant-weight", "a="), {}, '--tenant-weight "a=" has no weight: use a number from 0.001 to 1000'),
    "weight of nothing": (("--tenant-weight", "a=0"), {}, "has no weight"),
    "weight without end": (("--tenant-weight", "a=inf"), {}, "has no weight"),
    "half a quota": (("--tenant-quota", "a=5"), {}, "is no quota: write REQUESTS/S,TOKENS/MIN"),
    "an empty quota": (("--tenant-quota", "a=,"), {}, "is no quota"),
    "a quota of nothing": (("--tenant-quota", "a=0,5"), {}, "is no quota"),
    "a quota in words": (("--tenant-quota", "a=few,many"), {}, "is no quota"),
    "a queue below 0": (("--queue-requests", "-1"), {}, "use a whole number from 0"),
    "half a request": (("--queue-requests", "1.5"), {}, "use a whole number from 0"),
    "environment": ((), {"ROUNDHOUSE_TENANT_QUOTAS": "a=1"}, "ROUNDHOUSE_TENANT_QUOTAS"),
    "queue of the environment": ((), {"ROUNDHOUSE_QUEUE_TOKENS": "all"}, 'ROUNDHOUSE_QUEUE_TOKENS is "all"'),
}


@pytest.mark.parametrize(("arguments", "environ", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_readable_line(
    read: Read, arguments: tuple[str, ...], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(Usage) as error:
        read(*arguments, **environ)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
