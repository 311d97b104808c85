"""Page tokens of lists of requests: engines and gateways read one another's, so that one list spans all engines."""

from __future__ import annotations

import base64
import binascii

BAD_TOKEN = "is not one of ours: give next_page_token of the page before, or nothing"


def page_token(arrival_ns: int, request_id: str) -> str:
    """Returns the token of a page that ends with this request."""
    return base64.urlsafe_b64encode(f"{arrival_ns} {request_id}".encode()).decode().rstrip("=")


def after(token: str) -> tuple[int, str] | None:
    """Returns (arrival in ns, id) of the request behind which the page begins, newest first, then by id; None: none.

    Raises ValueError for what is no token of ours.
    """
    if not token:
        return None
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        arrival, request_id = text.split(" ")
        return int(arrival), request_id
    except (binascii.Error, ValueError) as error:
        raise ValueError(BAD_TOKEN) from error
