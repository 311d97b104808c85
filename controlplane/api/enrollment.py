"""Serves `EnrollmentService`: node agents get their certificates."""

from __future__ import annotations

from typing import Any

from controlplane.api.access import authentication_off
from controlplane.auth.caller import caller
from controlplane.auth.enrolling import Enrolling
from roundhouse.internal.v1 import enrollment_service_pb2 as pb
from roundhouse.kit.fields import invalid
from roundhouse.kit.latest import Latest
from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.kit.times import to_timestamp


class EnrollmentApi:
    """The methods of `EnrollmentService`.

    enrolling: None where agents join without certificates. port: that on which certificates are asked for, once it is
    known.
    """

    def __init__(self, enrolling: Enrolling | None, port: Latest[int | None]) -> None:
        self._enrolling, self._port = enrolling, port

    async def GetAgentEndpoint(self, _: pb.GetAgentEndpointRequest, __: Any) -> pb.GetAgentEndpointResponse:
        """Says where agents join."""
        if self._enrolling is None:
            return pb.GetAgentEndpointResponse()
        async for port in self._port.watch():
            if port is not None:
                return pb.GetAgentEndpointResponse(requires_certificate=True, port=port)
        raise AssertionError("a watch never ends")

    async def EnrollNode(self, request: pb.EnrollNodeRequest, _: Any) -> pb.EnrollNodeResponse:
        """Gives a node its first certificate."""
        if self._enrolling is None:
            raise authentication_off()
        if not is_id(request.node_id):
            raise invalid("node_id", f'"{request.node_id[:100]}" is not an id: use {ID_RULE}')
        signed = await self._enrolling.enroll(request.token, request.node_id, request.certificate_request)
        return pb.EnrollNodeResponse(certificate=signed.certificate, expire_time=to_timestamp(signed.expire_s))

    async def RenewNodeCertificate(
        self, request: pb.RenewNodeCertificateRequest, _: Any
    ) -> pb.RenewNodeCertificateResponse:
        """Gives a node another certificate."""
        node = caller().node
        if self._enrolling is None or node is None:
            raise authentication_off()
        signed = self._enrolling.renew(node, request.certificate_request)
        return pb.RenewNodeCertificateResponse(
            certificate=signed.certificate, expire_time=to_timestamp(signed.expire_s)
        )
