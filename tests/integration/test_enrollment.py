"""The certificate of a node agent: got, kept and renewed, with a real control plane."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.credentials import FILE, Credentials, renewal_s
from roundhouse.internal.v1 import enrollment_service_pb2 as pb
from roundhouse.internal.v1.enrollment_service_pb2_grpc import EnrollmentServiceStub
from roundhouse.kit.certificates import life_of, new_key, signing_request
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.errors import Unauthenticated, Usage
from tests.support.clock import FakeClock
from tests.support.cluster import eventually
from tests.support.secured import LIFE_S, Secured, secured_plane

DAY_S = 24 * 3600.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_plane(tmp_path) as it:
        yield it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state directory of an agent."""
    (tmp_path / "agent").mkdir()
    return tmp_path / "agent"


def credentials(plane: Secured, folder: Path, token: str | None = None, *, after_s: float = 0.0) -> Credentials:
    """Returns those of node a, at a time from now."""
    clock = FakeClock(time.time() + after_s) if after_s else SystemClock()
    return Credentials(folder, "a", ca=plane.ca, token=token, clock=clock)


async def renewed(plane: Secured, its: Credentials) -> bytes:
    """Dials, and shows that it is let in as a node there: asks for a certificate, and returns it."""
    async with its.dial(plane.address) as channel:
        request = pb.RenewNodeCertificateRequest(certificate_request=signing_request(new_key(), "a"))
        answer: pb.RenewNodeCertificateResponse = await EnrollmentServiceStub(channel).RenewNodeCertificate(request)
        return answer.certificate


def kept(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / FILE).read_text())
    return found


async def test_a_certificate_is_got_for_a_token_kept_for_its_owner_alone_and_good_without_the_token(
    plane: Secured, folder: Path
) -> None:
    token = await plane.join_token()
    its = credentials(plane, folder, token)
    begin_s, end_s = life_of(await renewed(plane, its))
    assert LIFE_S <= end_s - begin_s < LIFE_S + DAY_S
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    first = kept(folder)
    assert token not in json.dumps(first)
    for again in (None, token):  # a unit of systemd has the token still, long after it was used
        await renewed(plane, credentials(plane, folder, again))
    assert kept(folder) == first


async def test_without_a_certificate_and_a_token_a_node_is_told_how_to_get_one(plane: Secured, folder: Path) -> None:
    with pytest.raises(Unauthenticated, match='node "a" has none: start the agent with a join token') as error:
        await renewed(plane, credentials(plane, folder))
    assert "roundhouse agent token --node a" in str(error.value)
    with pytest.raises(Unauthenticated, match="the join token is unknown"):
        await renewed(plane, credentials(plane, folder, "rhj_guessed"))
    assert not (folder / FILE).exists()


async def test_a_token_that_is_refused_leaves_the_certificate_that_is_there(plane: Secured, folder: Path) -> None:
    await renewed(plane, credentials(plane, folder, await plane.join_token()))
    first = kept(folder)
    await renewed(plane, credentials(plane, folder, "rhj_guessed"))
    assert kept(folder) == first


async def test_a_new_token_gets_a_new_certificate(plane: Secured, folder: Path) -> None:
    await renewed(plane, credentials(plane, folder, await plane.join_token()))
    first = kept(folder)
    async with plane.operator() as client:
        await client.access.revoke_node("a")
    await renewed(plane, credentials(plane, folder, await plane.join_token("a")))
    assert kept(folder)["certificate"] != first["certificate"]


async def test_a_certificate_is_renewed_while_a_session_lasts_once_two_thirds_are_over(
    plane: Secured, folder: Path
) -> None:
    await renewed(plane, credentials(plane, folder, await plane.join_token()))
    first = kept(folder)
    async with credentials(plane, folder, after_s=21 * DAY_S).dial(plane.address):
        second = await eventually(lambda: kept(folder) if kept(folder) != first else None, "it is renewed")
    assert second is not None
    assert second["key"] != first["key"]
    await renewed(plane, credentials(plane, folder))


async def test_a_certificate_that_has_expired_needs_a_token(plane: Secured, folder: Path) -> None:
    await renewed(plane, credentials(plane, folder, await plane.join_token()))
    with pytest.raises(Unauthenticated, match='node "a" has one that has expired'):
        await renewed(plane, credentials(plane, folder, after_s=31 * DAY_S))
    await renewed(plane, credentials(plane, folder, await plane.join_token("a"), after_s=31 * DAY_S))


async def test_a_certificate_that_cannot_be_kept_is_good_for_this_life_of_the_agent(
    plane: Secured, folder: Path
) -> None:
    its = credentials(plane, folder / "gone", await plane.join_token())
    await renewed(plane, its)
    await renewed(plane, its)


@pytest.mark.parametrize("content", ["", "{}", '{"certificate": "x", "key": "y", "token_hash": "z"}', "[]"])
async def test_a_file_that_is_broken_is_named(plane: Secured, folder: Path, content: str) -> None:
    (folder / FILE).write_text(content)
    with pytest.raises(Usage, match=r"credentials\.json cannot be read .* delete it and give a new join token"):
        credentials(plane, folder)


async def test_two_thirds_of_a_life_are_counted_from_its_begin(plane: Secured) -> None:
    certificate = (await plane.enroll("a", await plane.join_token())).certificate
    begin_s, end_s = life_of(certificate)
    assert begin_s < renewal_s(certificate) < end_s
    assert renewal_s(certificate) - begin_s == pytest.approx(2 * (end_s - renewal_s(certificate)))
