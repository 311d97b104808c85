"""What every part of Roundhouse may import: the contract, the kit, the client and the command line.

`from roundhouse import Client` is all that a program needs. The client is loaded when it is asked for, so that servers
and engines, which import `roundhouse.v1` and `roundhouse.kit`, do not carry it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roundhouse.client import Client, SyncClient

    __version__: str

__all__ = ["Client", "SyncClient", "__version__"]

if not TYPE_CHECKING:  # else every misspelt attribute would pass the type checker

    def __getattr__(name: str) -> object:
        """Loads the client, or looks up the version, at the first use."""
        if name == "__version__":
            return import_module("importlib.metadata").version("roundhouse-serve")
        if name in __all__:
            return getattr(import_module("roundhouse.client"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
