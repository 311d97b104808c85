"""Lists that come in pages."""

from __future__ import annotations

from roundhouse.client.pages import all_pages
from roundhouse.v1 import access_service_pb2, inference_service_pb2


async def test_whoever_could_not_be_asked_for_any_of_the_pages_is_named_once() -> None:
    pages = {
        "": inference_service_pb2.ListRequestsResponse(
            requests=[{"request_id": "a"}], unreachable=["first", "second"], next_page_token="1"
        ),
        "1": inference_service_pb2.ListRequestsResponse(unreachable=["second", "third"], next_page_token="2"),
        "2": inference_service_pb2.ListRequestsResponse(requests=[{"request_id": "b"}], unreachable=["first"]),
    }

    async def fetch(token: str) -> inference_service_pb2.ListRequestsResponse:
        return pages[token]

    whole = await all_pages(fetch, "requests")
    assert [each.request_id for each in whole.requests] == ["a", "b"]
    assert whole.unreachable == ["first", "second", "third"]


async def test_a_list_of_what_one_place_knows_has_nobody_to_name() -> None:
    pages = {
        "": access_service_pb2.ListAccessTokensResponse(access_tokens=[{"name": "a"}], next_page_token="1"),
        "1": access_service_pb2.ListAccessTokensResponse(access_tokens=[{"name": "b"}]),
    }

    async def fetch(token: str) -> access_service_pb2.ListAccessTokensResponse:
        return pages[token]

    assert [each.name for each in (await all_pages(fetch, "access_tokens")).access_tokens] == ["a", "b"]
