"""Events, as a client asks for them."""

from __future__ import annotations

from roundhouse.client.connection import Connection
from roundhouse.client.names import deployment_name
from roundhouse.client.pages import all_pages
from roundhouse.client.stream import Watch
from roundhouse.v1 import event_service_pb2
from roundhouse.v1.event_service_pb2_grpc import EventServiceStub

EVERYTHING = ""


class Events:
    """What happened to a deployment, `chat`, to a replica or a node by its name, `nodes/a`, or to everything."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, of: str = EVERYTHING) -> event_service_pb2.ListEventsResponse:
        """Returns the events that are kept, the first that happened first, all pages in one; see `watch` for more."""

        async def fetch(token: str) -> event_service_pb2.ListEventsResponse:
            request = event_service_pb2.ListEventsRequest(object=_object(of), page_token=token)
            stub = self._connection.stub(EventServiceStub)
            page: event_service_pb2.ListEventsResponse = await self._connection.unary(stub.ListEvents, request)
            return page

        return await all_pages(fetch, "events")

    def watch(self, of: str = EVERYTHING, cursor: str = "") -> Watch[event_service_pb2.EventNotice]:
        """Returns all that are kept, a bookmark, then every new one; behind `cursor`, only what happened since."""
        request = event_service_pb2.WatchEventsRequest(object=_object(of), cursor=cursor)
        return Watch(self._connection, lambda: self._connection.stub(EventServiceStub).WatchEvents(request))


def _object(of: str) -> str:
    return deployment_name(of) if of else EVERYTHING
