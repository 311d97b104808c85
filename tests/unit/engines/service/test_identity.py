"""Nothing but health and reflection answers a call that does not name this life and show its key."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from roundhouse.internal.hops import HOP_KEY
from roundhouse.internal.v1 import engine_service_pb2
from roundhouse.v1 import inference_service_pb2
from tests.support.scripted_engine import IDENTITY, ScriptedEngine, hop, refusal_of, scripted_engine

WRONG_ENGINE = (grpc.StatusCode.UNAVAILABLE, "WRONG_ENGINE")
KEY_INVALID = (grpc.StatusCode.UNAUTHENTICATED, "ENGINE_KEY_INVALID")

METHODS = {
    "Generate": lambda it, metadata: it.inference.Generate(inference_service_pb2.GenerateRequest(), metadata=metadata),
    "Chat": lambda it, metadata: it.inference.Chat(inference_service_pb2.ChatRequest(), metadata=metadata),
    "Attach": lambda it, metadata: it.inference.Attach(inference_service_pb2.AttachRequest(), metadata=metadata),
    "GetRequest": lambda it, metadata: it.inference.GetRequest(
        inference_service_pb2.GetRequestRequest(), metadata=metadata
    ),
    "ListRequests": lambda it, metadata: it.inference.ListRequests(
        inference_service_pb2.ListRequestsRequest(), metadata=metadata
    ),
    "CancelRequest": lambda it, metadata: it.inference.CancelRequest(
        inference_service_pb2.CancelRequestRequest(), metadata=metadata
    ),
    "Describe": lambda it, metadata: it.engine.Describe(engine_service_pb2.DescribeRequest(), metadata=metadata),
    "Watch": lambda it, metadata: it.engine.Watch(engine_service_pb2.WatchRequest(), metadata=metadata),
    "Drain": lambda it, metadata: it.engine.Drain(engine_service_pb2.DrainRequest(), metadata=metadata),
}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as it:
        yield it


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("metadata", "refusal"),
    [
        pytest.param(None, KEY_INVALID, id="no hop"),
        pytest.param(((HOP_KEY, b"\xff\xff"),), KEY_INVALID, id="garbage"),
        pytest.param(hop(engine_key=b""), KEY_INVALID, id="no key"),
        pytest.param(hop(engine_key=b"K" * 32), KEY_INVALID, id="another key"),
        pytest.param(hop(engine_key=IDENTITY.engine_key + b"k"), KEY_INVALID, id="a longer key"),
        pytest.param(hop(engine_uuid=""), KEY_INVALID, id="the key without the engine"),
        pytest.param(hop(engine_uuid="another"), WRONG_ENGINE, id="another engine"),
    ],
)
async def test_a_call_without_this_lifes_identity_is_refused(
    engine: ScriptedEngine, method: str, metadata: Any, refusal: Any
) -> None:
    assert (await refusal_of(METHODS[method](engine, metadata)))[:2] == refusal
    assert engine.lifecycle.served is not None


async def test_every_method_of_both_services_is_in_this_test() -> None:
    services = (inference_service_pb2, "InferenceService"), (engine_service_pb2, "EngineService")
    names = {each.name for module, name in services for each in module.DESCRIPTOR.services_by_name[name].methods}
    assert names == set(METHODS)


async def test_health_is_open(engine: ScriptedEngine) -> None:
    health: Any = health_pb2_grpc.HealthStub(engine.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_key_is_not_shown() -> None:
    assert repr(IDENTITY.engine_key) not in repr(IDENTITY)
