"""Runs what takes longer than a moment beside the event loop, so that no stream waits for another's request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

QUICK = 4096  # characters or ids to be tokenized, about a millisecond of work
# Threads of our own: an event loop that ends waits for those of `asyncio.to_thread`, half a minute for a long prompt.
_encoders = ThreadPoolExecutor(thread_name_prefix="encode")
# Others for grammars, of which one may take long: prompts do not wait for them.
_compilers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="compile")


async def encoding(work: Callable[[], T], size: int) -> T:
    """Returns what `work` returns. size: characters or ids that it goes through."""
    if size <= QUICK:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_encoders, work)


async def compiling(work: Callable[[], T]) -> T:
    """Returns what `work` returns."""
    return await asyncio.get_running_loop().run_in_executor(_compilers, work)
