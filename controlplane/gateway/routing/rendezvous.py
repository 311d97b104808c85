"""An order of replicas that is another one for each key, and the same for whoever asks, with no memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from controlplane.model import Route

_MASK = (1 << 64) - 1


def first_of(key: str, routes: Sequence[Route]) -> Route:
    """Returns the route that is first for a key, of at least one.

    Where a replica comes or goes, only keys move that have it first.
    """
    own = _number(key)

    def weight(route: Route) -> tuple[int, str]:
        return _mixed(
            own ^ _number_of(route.replica_uid)
        ), route.engine_uuid  # a replica that moves has two for a while

    return max(routes, key=weight)


def _mixed(number: int) -> int:
    """Returns 64 bits each of which depends on all that are given.

    Source: the finalizer of splitmix64, Steele et al. 2014, doi:10.1145/2660193.2660195.
    """
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


_number_of = lru_cache(maxsize=16_384)(_number)  # of replicas, of which a deployment may have a thousand
