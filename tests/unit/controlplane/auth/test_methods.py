"""The table of rights: it has every method that is served, and none that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controlplane.auth.methods import RIGHTS, Other, Right, Role
from roundhouse.kit.channel import open_channel
from tests.support.plane import plane_on

READING = ("Get", "List", "Watch", "Plan", "Resolve", "Stream")


async def served(address: str) -> set[str]:
    """Returns the full names of all methods of a server, as its reflection tells."""
    async with open_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]))
        [answer] = [each async for each in call]
    pool = descriptor_pool.Default()
    names = [each.name for each in answer.list_services_response.service]
    # v1 is served from the descriptor of v1alpha.
    found = [pool.FindServiceByName(each.replace("reflection.v1.", "reflection.v1alpha.")) for each in names]
    return {method.full_name for each in found for method in each.methods}


async def test_it_has_every_method_that_is_served_and_none_else(tmp_path: Path) -> None:
    async with plane_on(tmp_path / "state") as plane:
        methods = await served(plane.address)
    # Older versions of gRPC's package have no List of health.
    assert methods | {"grpc.health.v1.Health.List"} == set(RIGHTS)


@pytest.mark.parametrize(
    ("method", "right"),
    [each for each in RIGHTS.items() if each[0].startswith("roundhouse.v1.")],
    ids=lambda each: each,
)
def test_what_changes_anything_but_ones_own_requests_is_for_operators(method: str, right: Right) -> None:
    service, _, name = method.removeprefix("roundhouse.v1.").partition(".")
    if service == "InferenceService":
        assert right is Role.INFERENCE
    elif not name.startswith(READING):
        assert right is Role.OPERATOR
    else:
        # Who has which token is the affair of those who give them.
        assert right is (Role.OPERATOR if name == "ListAccessTokens" else Role.VIEWER)


def test_agents_alone_join_and_everybody_may_ask_for_what_is_public() -> None:
    rest = {name: right for name, right in RIGHTS.items() if not name.startswith("roundhouse.v1.")}
    assert {name for name, right in rest.items() if right is Other.NODE} == {
        "roundhouse.internal.v1.AgentService.Join",
        "roundhouse.internal.v1.AgentService.SendLogs",
        "roundhouse.internal.v1.EnrollmentService.RenewNodeCertificate",
    }
    assert {name.rpartition(".")[0] for name, right in rest.items() if right is Other.EVERYBODY} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "roundhouse.internal.v1.EnrollmentService",
    }
    own = {name: right for name, right in rest.items() if right not in (Other.NODE, Other.EVERYBODY)}
    assert own == {"roundhouse.internal.v1.FleetService.WatchRoutes": Role.OPERATOR}  # it has the keys of engines
