"""Cuts requests into pages, newest first. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from roundhouse.internal.request_pages import Place, format_page_token, parse_page_token, place_of
from roundhouse.kit.fields import invalid
from roundhouse.v1 import inference_service_pb2, request_pb2

PAGE_SIZE = 100


def page(
    asked: inference_service_pb2.ListRequestsRequest, requests: Iterable[request_pb2.InferenceRequest]
) -> inference_service_pb2.ListRequestsResponse:
    """Returns the page that is asked for, of requests in any order; raises InvalidArgument for a token of none."""
    end, size, states = _end(asked.page_token), asked.page_size or PAGE_SIZE, frozenset(asked.states)
    rest = (each for each in requests if (not states or each.state in states) and (end is None or place_of(each) < end))
    found = heapq.nlargest(size + 1, rest, key=place_of)
    told = found[:size]
    return inference_service_pb2.ListRequestsResponse(
        requests=told, next_page_token=format_page_token(place_of(told[-1])) if len(found) > size else ""
    )


def _end(token: str) -> Place | None:
    try:
        return parse_page_token(token) if token else None
    except ValueError as error:
        raise invalid("page_token", "is not one that this method has given: leave it out") from error
