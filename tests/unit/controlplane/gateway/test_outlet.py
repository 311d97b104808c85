"""Messages on their way to a client that reads fast, slowly or no more."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.gateway.outlet import HELD, JOINED, Outlet, Stalled


class Client:
    """The call of a client that reads when it is let, and leaves when it likes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.metadata: list[object] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.has_left = False

    async def send_initial_metadata(self, metadata: object) -> None:
        self.metadata.append(metadata)

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        if self.has_left:
            raise RuntimeError("nobody is there")
        self.got.append(message)


async def test_a_client_that_keeps_up_gets_each_message_by_itself() -> None:
    client = Client()
    outlet = Outlet(client)
    for each in (b"a", b"b", b"c"):
        await outlet.put(each)
        await outlet.flush()
    assert client.got == [b"a", b"b", b"c"]


async def test_what_comes_while_a_client_does_not_read_goes_joined_and_in_order() -> None:
    client = Client()
    outlet = Outlet(client)
    client.reads.clear()
    await outlet.put(b"0")
    await asyncio.sleep(0)  # the first one is on its way
    for number in range(1, 10):
        await outlet.put(b"%d" % number)
    client.reads.set()
    await outlet.flush()
    assert client.got == [b"0", b"123456789"]


async def test_what_comes_before_the_metadata_is_sent_goes_joined_behind_it() -> None:
    client = Client()
    outlet = Outlet(client)
    outlet.begin([("a", "b")])
    await outlet.put(b"0")
    await outlet.put(b"1")
    await outlet.flush()
    assert (client.metadata, client.got) == ([[("a", "b")]], [b"01"])


async def test_whoever_writes_waits_for_a_client_that_is_far_behind() -> None:
    client = Client()
    outlet = Outlet(client)
    client.reads.clear()
    piece, put = b"x" * 1000, 0

    async def write() -> None:
        nonlocal put
        while put < 1000:
            await outlet.put(piece)
            put += 1

    writing = asyncio.create_task(write())
    for _ in range(2000):  # as many turns as it would take to write all
        await asyncio.sleep(0)
    assert HELD // len(piece) <= put <= HELD // len(piece) + 2
    client.reads.set()
    await writing
    await outlet.flush()
    assert b"".join(client.got) == piece * 1000
    assert max(map(len, client.got)) <= JOINED


async def test_a_client_that_has_left_holds_nobody_up() -> None:
    client = Client()
    outlet = Outlet(client)
    outlet.begin([("a", "b")])
    outlet.begin([("a", "b")])
    client.has_left = True
    for _ in range(1000):
        await outlet.put(b"x" * 1000)
    await outlet.flush()
    assert client.metadata == [[("a", "b")]]
    assert client.got == []


async def test_closing_drops_what_waits() -> None:
    client = Client()
    outlet = Outlet(client)
    client.reads.clear()
    await outlet.put(b"a")
    await outlet.put(b"b")
    outlet.close()
    await outlet.flush()
    client.reads.set()
    await outlet.put(b"c")
    await outlet.flush()
    assert client.got == []


async def test_a_client_that_reads_nothing_for_long_is_told_to_come_back() -> None:
    client = Client()
    outlet = Outlet(client, stalled_s=0.01)
    client.reads.clear()
    await outlet.put(b"a")
    with pytest.raises(Stalled, match="attach again"):
        await outlet.flush()
    with pytest.raises(Stalled):
        await outlet.put(b"b")
    assert client.got == []
