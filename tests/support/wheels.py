"""Small wheels that a test makes itself, and a package index that never answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from zipfile import ZipFile


def write_wheel(
    folder: Path, name: str, version: str, *, requires: Sequence[str] = (), tag: str = "py3-none-any", source: str = ""
) -> None:
    """Puts a wheel of one module into a folder. It knows its version, unless `source` says what it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    described = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", source or f'VERSION = "{version}"\n')
        wheel.writestr(f"{described}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(f"{described}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{described}/RECORD", "")


class Mute:
    """A package index that takes requests and answers none until it is told to, and then with an error."""

    def __init__(self) -> None:
        self.address = ""
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            await self.answers.wait()
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()


@contextlib.asynccontextmanager
async def mute_index() -> AsyncIterator[Mute]:
    """Serves such an index for the block."""
    mute = Mute()
    server = await asyncio.start_server(mute.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    mute.address = f"http://{host}:{port}/simple"
    try:
        yield mute
    finally:
        mute.answers.set()
        server.close()
        await server.wait_closed()
