"""Which addresses of this machine a host stands for. Knows no ports."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

_LOOPBACK = ("127.0.0.1", "::1")  # what `localhost` is to gRPC's clients, whatever this machine's file of hosts says


async def own_addresses(host: str) -> list[str]:
    """Returns the addresses of this machine that a name stands for, as they are written before a port.

    What is no name is returned as it is. The list is empty if nobody knows the name or it is another machine's.
    """
    if host.startswith("unix:") or _is_literal(host):
        return [host]
    found = _LOOPBACK if host == "localhost" else await _resolve(host)
    # Without IPv6 the name still stands for ::1, but there is no such address to listen on.
    return [f"[{each}]" if ":" in each else each for each in found if _is_ours(each)]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


async def _resolve(name: str) -> Iterable[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for what cannot be a name, such as one with an empty part
        return ()
    return dict.fromkeys(str(address[0]) for *_, address in found)


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
