"""What a tenant may use in a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.admission.quotas import Quotas
from controlplane.model import AdmissionSettings, Quota

SETTINGS = AdmissionSettings(quotas={"ada": Quota(2.0, None), "bob": Quota(None, 600.0), "*": Quota(1.0, 60.0)})


def passes(quotas: Quotas, tenant: str, at_s: float) -> bool:
    return quotas.begin(tenant, at_s) is None


def test_so_many_requests_a_second_pass_and_a_refusal_says_when_the_next_one_does() -> None:
    quotas = Quotas(SETTINGS.quota_of)
    assert [passes(quotas, "ada", 0.0) for _ in range(3)] == [True, True, False]
    exceeded = quotas.begin("ada", 0.0)
    assert exceeded is not None
    assert exceeded.what == "2 requests a second"
    assert exceeded.retry_s == pytest.approx(0.5)
    assert not passes(quotas, "ada", 0.49)
    assert passes(quotas, "ada", 0.5)


def test_tokens_that_were_used_beyond_what_was_left_are_paid_back_first() -> None:
    quotas = Quotas(SETTINGS.quota_of)
    assert passes(quotas, "bob", 0.0)
    quotas.use("bob", 1200)
    exceeded = quotas.begin("bob", 0.0)
    assert exceeded is not None
    assert exceeded.retry_s == pytest.approx(60.1)
    assert passes(quotas, "bob", 60.2)
    quotas.use("bob", 100)
    quotas.use("bob", -100)
    assert passes(quotas, "bob", 60.2)


def test_all_who_are_not_named_have_a_quota_each() -> None:
    quotas = Quotas(SETTINGS.quota_of)
    assert [passes(quotas, tenant, 0.0) for tenant in ("cy", "dan", "", "cy")] == [True, True, True, False]


def test_who_has_no_quota_may_use_any_number() -> None:
    quotas = Quotas(AdmissionSettings().quota_of)
    assert all(passes(quotas, "ada", 0.0) for _ in range(1000))


@given(
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 500)), min_size=1, max_size=60),
)
def test_over_any_time_no_more_passes_than_the_quota_and_one_burst(
    per_s: float, history: list[tuple[float, int]]
) -> None:
    quotas = Quotas(lambda _: Quota(per_s, per_s * 600))
    now_s, passed, used, largest = 0.0, 0, 0, 0
    for rest_s, tokens in history:
        now_s += rest_s
        if passes(quotas, "ada", now_s):
            passed += 1
            used += tokens
            largest = max(largest, tokens)
            quotas.use("ada", tokens)
    assert passed <= per_s * now_s + max(1.0, per_s) + 1e-6
    assert used <= per_s * 10 * now_s + max(1.0, per_s * 600) + largest + 1e-6
