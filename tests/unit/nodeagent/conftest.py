"""A node on which real processes stand in for engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.supervision import Node


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Node]:
    """A node without a supervisor."""
    node = Node(tmp_path)
    yield node
    await node.end()


@pytest.fixture
async def node(idle: Node) -> AsyncIterator[Node]:
    """A node with a supervisor."""
    async with idle.supervised():
        yield idle
