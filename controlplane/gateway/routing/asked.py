"""What of a request decides where it goes."""

from __future__ import annotations

from dataclasses import dataclass

FRONT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as routing sees it. Tokens are estimates, for nothing is tokenized at a gateway."""

    token_count: int = 0  # that the engine has to compute before the first output token: prompt, and output so far
    max_tokens: int | None = None  # that are still to come of each choice, at most
    choice_count: int = 1
    session_key: str = ""  # requests with the same one prefer the same replica
    # Of its beginnings, the shortest first: a hash of each, and the tokens that it has. Equal ones have equal hashes.
    prefixes: tuple[int, ...] = ()
    prefix_token_counts: tuple[int, ...] = ()
    front: str = ""  # names the first `FRONT_TOKENS` of the prompt, to all gateways alike; empty if it is shorter
    # Of one that goes on where another engine was: its fingerprint, and what names the request to all gateways alike.
    fingerprint: str = ""
    is_exact_only: bool = False  # no engine that is known to have another one will do
    rendezvous_key: str = ""
