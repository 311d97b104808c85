"""Users and passwords in addresses are shown to nobody, wherever the addresses stand."""

from __future__ import annotations

import pytest

from roundhouse.kit.urls import redacted

CASES = {
    "none": ("https://host/simple", "https://host/simple"),
    "a user and a password": ("https://me:secret@host/simple", "https://***@host/simple"),
    "a token": ("https://token@host/simple", "https://***@host/simple"),
    "in a sentence": (
        "error for url (http://a:b@h/x), http://c:d@h/y",
        "error for url (http://***@h/x), http://***@h/y",
    ),
    "a password with an @": ("https://me:se@cret@host/x", "https://***@host/x"),
    "an @ of the path": ("https://host/x@1", "https://host/x@1"),
    "no address": ("me@host", "me@host"),
}


@pytest.mark.parametrize(("text", "shown"), CASES.values(), ids=CASES)
def test_what_is_before_the_host_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
