"""Serves `AgentService`: whole reports come in, whole assignments go out. The end of a session stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from controlplane.api.intake import Inbox, Intake
from controlplane.api.reports import check_report, choose_version
from controlplane.auth.caller import caller
from controlplane.fleet.assignments import Assignments
from controlplane.fleet.logs import LogWishes
from controlplane.fleet.registry import Registry, Session
from controlplane.secrets import Secrets
from roundhouse.internal.v1.agent_service_pb2 import JoinRequest, JoinResponse, SendLogsResponse
from roundhouse.kit.errors import Conflict, Forbidden, InvalidArgument
from roundhouse.v1 import errors_pb2

log = structlog.get_logger()

RESEND_S = 10.0


class AgentApi:
    """The methods of `AgentService`."""

    def __init__(
        self,
        registry: Registry,
        assignments: Assignments,
        secrets: Secrets,
        wishes: LogWishes,
        hint: Callable[[], None],
    ) -> None:
        self._registry, self._assignments, self._secrets = registry, assignments, secrets
        self._wishes, self._hint = wishes, hint
        self._intake = Intake(hint)

    async def Join(self, _: Any, context: Any) -> None:
        """Holds the session of a node until the agent leaves or is replaced."""
        first = await context.read()
        if first is grpc.aio.EOF:
            raise InvalidArgument("the call ended before its first report: send one")
        version = choose_version(first)
        check_report(first)
        _require_own(first.node_id)
        with self._registry.session(first) as session:
            session.record(first)
            self._hint()
            log.info("agent connected", node=session.node, agent=first.agent_uid)
            # Else gRPC sends it with the first write; if that is cancelled half done, no status can be sent any more.
            await context.send_initial_metadata(())
            try:
                await self._hold(session, first, version, context)
            finally:
                log.info("agent disconnected", node=session.node, agent=first.agent_uid)

    async def SendLogs(self, _: Any, context: Any) -> SendLogsResponse:
        """Takes what an engine wrote to the client that waits for it, no faster than that one reads."""
        first = await context.read()
        if first is grpc.aio.EOF or not first.request_id:
            raise InvalidArgument("the first message names no request: set request_id")
        relay = self._wishes.relay(first.request_id)
        with relay.answered():
            message = first
            while message is not grpc.aio.EOF:
                await relay.put(message)
                if message.is_last:
                    relay.end()
                message = await context.read()
        return SendLogsResponse()

    async def _hold(self, session: Session, first: JoinRequest, version: int, context: Any) -> None:
        """Reads and writes until the agent has left; raises Conflict if a newer call takes its place."""
        inbox = Inbox(session, first)
        reading = asyncio.create_task(self._read(inbox, context), name=f"reports of {session.node}")
        writing = asyncio.create_task(self._write(session, version, context), name=f"assignments of {session.node}")
        replaced = asyncio.create_task(session.replaced.wait(), name=f"replacement of {session.node}")
        tasks: set[asyncio.Future[Any]] = {reading, writing, replaced, inbox.refused}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if replaced in done:
                raise Conflict(f'a newer call of the agent of node "{session.node}" has taken over: end this one')
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, inbox: Inbox, context: Any) -> None:
        while (report := await context.read()) is not grpc.aio.EOF:
            self._intake.put(inbox, report)
        self._intake.take(inbox)  # the last word of an agent that leaves
        if inbox.refused.done():
            inbox.refused.result()

    async def _write(self, session: Session, version: int, context: Any) -> None:
        with self._assignments.following(session.node) as marks:
            while True:
                now = self._assignments.now(session.node)
                await context.write(
                    JoinResponse(
                        protocol_version=version,
                        order=now.order,
                        engines=self._secrets.opened(now.engines),
                        model_probes=now.probes,
                        hub_probes=now.hub_probes,
                        cached_model_deletions=now.deletions,
                        log_requests=now.log_requests,
                    )
                )
                await marks.take(RESEND_S)


def _require_own(node: str) -> None:
    """Raises Forbidden (NODE_MISMATCH) for the report of another node than that of the certificate, if there is one."""
    own = caller().node
    if own not in (None, node):
        raise Forbidden(
            f'the certificate is that of node "{own}", and the report that of "{node}": '
            "start the agent with the state directory of its node, or enroll it with a join token of its own",
            reason=errors_pb2.ERROR_REASON_NODE_MISMATCH,
        )
