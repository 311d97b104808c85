"""Page tokens of `ListRequests`: where a page ends. Alike for all engines, so that pages of several can be merged."""

from __future__ import annotations

import base64
import binascii

from roundhouse.v1 import request_pb2

Place = tuple[int, str]


def place_of(request: request_pb2.InferenceRequest) -> Place:
    """Returns what requests are ordered by; newer ones have higher places."""
    return request.arrival_time.ToNanoseconds(), request.request_id


def format_page_token(place: Place) -> str:
    """Returns the token of the page behind a place."""
    return base64.urlsafe_b64encode(f"{place[0]}/{place[1]}".encode()).decode().rstrip("=")


def parse_page_token(token: str) -> Place:
    """Returns the place behind which a page begins; raises ValueError if the token is none of ours."""
    try:
        time, _, request_id = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition("/")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a page token") from error
    return int(time), request_id
