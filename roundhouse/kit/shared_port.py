"""A port that several processes listen on; the kernel gives each connection to one of them.

Whoever holds the port does not listen. It takes it first, so that nobody else gets it between two of their lives.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

from roundhouse.kit.errors import Usage
from roundhouse.kit.hosts import own_addresses


@contextlib.asynccontextmanager
async def shared_port(host: str, port: int) -> AsyncIterator[int]:
    """Holds a port of this host for the block, for processes of this user alone; port 0 lets the system choose.

    Raises Usage if somebody listens there, or if the host is none of this machine.
    """
    addresses = await own_addresses(host)
    if not addresses or host.startswith("unix:"):
        raise Usage(f"cannot listen on {host} together: use an address of this machine, or a name of one")
    with contextlib.ExitStack() as stack:
        for each in addresses:
            port = _held(each.strip("[]"), port, stack)
        yield port


def _held(address: str, port: int, stack: contextlib.ExitStack) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        probed = _probed(family, address, port)
        # Until somebody listens, a probe sees nobody. So whoever starts at the same time is seen by this name, which no
        # file stands for and which ends with its holder.
        name = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        name.bind(f"\0roundhouse-port-{address}-{probed}")
        held = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((address, probed))
        except OSError:
            # Only what is left of connections is in the way, as nobody listens. So held, a server that does not share
            # is kept off only while another one listens.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((address, probed))
    except OSError as error:
        raise Usage(
            f"cannot listen on {address}:{port}: the port is in use or the address is not of this machine: "
            "choose another"
        ) from error
    return probed


def _probed(family: socket.AddressFamily, address: str, port: int) -> int:
    """Returns the port, or a free one for 0; raises OSError if somebody listens there."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:  # shares with nobody, so it sees who is there
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        return int(probe.getsockname()[1])
