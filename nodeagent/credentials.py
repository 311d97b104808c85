"""The certificate that this node joins with: got for a join token, kept in the state directory, renewed before it ends.

A control plane that asks for none is joined without.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import structlog

from roundhouse.internal.v1 import enrollment_service_pb2 as pb
from roundhouse.internal.v1.enrollment_service_pb2_grpc import EnrollmentServiceStub
from roundhouse.kit.certificates import life_of, new_key, signing_request
from roundhouse.kit.channel import open_channel
from roundhouse.kit.clock import Clock
from roundhouse.kit.errors import Unauthenticated, Usage
from roundhouse.kit.files import write_atomically
from roundhouse.kit.status import error_of
from roundhouse.kit.tls import ClientTls

log = structlog.get_logger()

FILE = "credentials.json"
ANSWER_S = 10.0
RETRY_S = 60.0  # after a renewal that failed; a third of the certificate's life is left for it
_LONGEST_WAIT_S = 3600.0  # a clock that is set shows itself within this
_RENEW_AFTER = 2 / 3  # of the life of a certificate
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate with its key, in PEM, and the SHA-256 of the join token that it was got for."""

    certificate: str
    key: str = field(repr=False)
    token_hash: str

    @property
    def tls(self) -> ClientTls:
        """Returns what is shown to the control plane."""
        return ClientTls(self.certificate.encode(), self.key.encode())


def renewal_s(certificate: bytes) -> float:
    """Returns when a certificate is to be renewed, in seconds since 1970."""
    begin_s, end_s = life_of(certificate)
    return begin_s + _RENEW_AFTER * (end_s - begin_s)


class Credentials:
    """Opens channels to the control plane as the node that this agent is.

    token: a join token, for a node that has no certificate or is to have another one.
    """

    def __init__(self, state_dir: Path, node_id: str, *, ca: Path, token: str | None, clock: Clock) -> None:
        self._path, self._node_id, self._ca, self._clock = state_dir / FILE, node_id, ca, clock
        self._token = token
        self._kept = _load(self._path)
        self._first_key = new_key()  # one for all attempts: an answer that was lost can be asked for again

    @contextlib.asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """Gives a channel for the block to where agents join, with the certificate of this node if one is needed.

        Raises Unauthenticated if there is none and none can be had, and grpc.RpcError.
        """
        async with open_channel(address, ca=self._ca) as channel:
            stub = EnrollmentServiceStub(channel)
            endpoint = await _endpoint(stub)
            if not endpoint.requires_certificate:
                yield channel
                return
            kept = await self._certified(stub)
        host = address.rpartition(":")[0]
        async with open_channel(f"{host}:{endpoint.port}", ca=self._ca, client=kept.tls) as channel:
            renewing = asyncio.create_task(self._keep_renewed(EnrollmentServiceStub(channel)), name="certificate")
            try:
                yield channel
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)

    async def _certified(self, stub: EnrollmentServiceStub) -> Kept:
        """Returns the certificate of this node, and gets one if it has none, or a token that it has not used yet."""
        kept = self._kept
        is_good = kept is not None and life_of(kept.certificate.encode())[1] > self._clock.now()
        is_new = self._token is not None and (kept is None or kept.token_hash != _hash(self._token))
        if kept is not None and is_good and not is_new:
            return kept
        if self._token is None:
            lack = "has none" if kept is None else "has one that has expired"
            raise Unauthenticated(
                f'the control plane asks agents for certificates, and node "{self._node_id}" {lack}: start the agent '
                f'with a join token, which an operator makes with "roundhouse agent token --node {self._node_id}"'
            )
        try:
            return await self._enroll(stub, self._token)
        except grpc.RpcError as error:
            if error.code() not in _REFUSALS:
                raise
            refusal = error_of(error).message
            if kept is None or not is_good:
                raise Unauthenticated(refusal) from error
            log.warning("join token refused; the certificate there is goes on", node=self._node_id, reason=refusal)
            self._token = None
            return kept

    async def _enroll(self, stub: EnrollmentServiceStub, token: str) -> Kept:
        request = signing_request(self._first_key, self._node_id)
        enroll = pb.EnrollNodeRequest(token=token, node_id=self._node_id, certificate_request=request)
        answer: pb.EnrollNodeResponse = await stub.EnrollNode(enroll, timeout=ANSWER_S)
        log.info("node has its certificate", node=self._node_id, expire_time=answer.expire_time.ToJsonString())
        return self._keep(answer.certificate, self._first_key, _hash(token))

    async def _keep_renewed(self, stub: EnrollmentServiceStub) -> None:
        while True:
            kept = self._kept
            assert kept is not None, "the channel shows it"
            left_s = renewal_s(kept.certificate.encode()) - self._clock.now()
            if left_s > 0:
                await asyncio.sleep(min(left_s, _LONGEST_WAIT_S))
                continue
            try:
                key = new_key()
                request = pb.RenewNodeCertificateRequest(certificate_request=signing_request(key, self._node_id))
                answer: pb.RenewNodeCertificateResponse = await stub.RenewNodeCertificate(request, timeout=ANSWER_S)
                self._keep(answer.certificate, key, kept.token_hash)
                log.info("certificate renewed", node=self._node_id, expire_time=answer.expire_time.ToJsonString())
            except grpc.RpcError as error:
                log.warning("certificate not renewed", node=self._node_id, reason=str(error_of(error)))
            await asyncio.sleep(RETRY_S)  # also by a clock that is so far ahead that each is due when it comes

    def _keep(self, certificate: bytes, key: bytes, token_hash: str) -> Kept:
        kept = Kept(certificate.decode(), key.decode(), token_hash)
        self._kept = kept
        try:
            write_atomically(self._path, json.dumps(asdict(kept)).encode(), mode=0o600)
        except OSError as error:  # it is good for this life of the agent, and the token is used up
            log.error("certificate not kept", path=str(self._path), error=str(error))
        return kept


async def _endpoint(stub: EnrollmentServiceStub) -> pb.GetAgentEndpointResponse:
    try:
        answer: pb.GetAgentEndpointResponse = await stub.GetAgentEndpoint(
            pb.GetAgentEndpointRequest(), timeout=ANSWER_S
        )
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # a control plane from before there were certificates
            return pb.GetAgentEndpointResponse()
        raise
    return answer


def _load(path: Path) -> Kept | None:
    """Returns what is kept in a file; None if there is none. Raises Usage if it is broken."""
    try:
        kept = Kept(**json.loads(path.read_bytes()))
        life_of(kept.certificate.encode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Usage(f"{path} cannot be read ({error}): mend it, or delete it and give a new join token") from error
    return kept


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
