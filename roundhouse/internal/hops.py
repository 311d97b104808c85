"""What travels beside our calls: the keys of the metadata, and locations as clients see them."""

from __future__ import annotations

import base64
import binascii

from google.protobuf.message import DecodeError

from roundhouse.internal.v1 import hop_pb2

HOP_KEY = "roundhouse-hop-bin"  # on every call to an engine: a `Hop`
REQUEST_ID_KEY = "roundhouse-request-id"  # in the initial metadata of an answer
LOCATION_KEY = "roundhouse-location"  # likewise


def format_location(location: hop_pb2.Location) -> str:
    """Returns a location as clients hold it."""
    return base64.urlsafe_b64encode(location.SerializeToString()).decode().rstrip("=")


def parse_location(text: str) -> hop_pb2.Location:
    """Returns what a location says; an empty one if it is not one of ours."""
    try:
        return hop_pb2.Location.FromString(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, DecodeError, ValueError):
        return hop_pb2.Location()
