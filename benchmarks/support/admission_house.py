"""The gateway that is measured, real on the wire, and the simulated engine behind it, in a process of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.support.fleet_child import Answer, answer
from benchmarks.support.simulated_engine import SimulatedEngine
from controlplane.auth.caller import Caller
from controlplane.auth.gate import Guard
from controlplane.auth.methods import Role
from controlplane.gateway.service import open_gateway
from controlplane.model import AdmissionSettings, NodeId, ReplicaUid, Route, Routes
from roundhouse.kit import logs
from roundhouse.kit.clock import SystemClock
from roundhouse.kit.latest import Latest
from roundhouse.kit.server import Listen, serve
from roundhouse.kit.service import Service
from roundhouse.kit.tasks import looping
from roundhouse.v1 import inference_service_pb2

_INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]


class _Doorman:
    """Takes every token for that of a tenant of this name."""

    def find(self, secret: str) -> Caller | None:
        return Caller(secret, Role.INFERENCE, tenant=secret)

    def of(self, _: str) -> int:
        return 0


async def _main(batch: int, step_s: float, prompt_tokens: int, queue_requests: int) -> None:
    engine = SimulatedEngine(batch=batch, step_s=step_s, prompt_tokens=prompt_tokens)
    here = Listen("127.0.0.1", 0)
    gate = Guard(_Doorman(), _Doorman(), SystemClock())
    async with (
        looping({"engine": engine.run}),
        serve(here, [Service(_INFERENCE, engine)], grace_s=0) as back,
    ):
        route = Route(
            "chat", 0, ReplicaUid("r"), 1, NodeId("a"), back.address, "e", b"k", True, 0, 0, max_running_count=batch
        )
        settings = AdmissionSettings(queue_requests=queue_requests)
        async with (
            open_gateway(Latest(Routes({"chat": (route,)})), settings=settings) as gateway,
            serve(here, [Service(_INFERENCE, gateway)], grace_s=0, gate=gate) as front,
        ):

            async def address() -> Answer:
                return {"address": front.address}

            async def served() -> Answer:
                waiting, engine.most_waiting = engine.most_waiting, 0
                return {"served": dict(engine.served), "most_waiting": waiting, "steps": engine.step_count}

            await answer({"address": address, "served": served})


if __name__ == "__main__":
    logs.configure("error")
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    asyncio.run(_main(**arguments))
