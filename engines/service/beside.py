"""Runs what takes longer than a moment beside the event loop, so that no stream waits for another's request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engines.service.fair_threads import FairThreads

T = TypeVar("T")

QUICK = 4096  # characters or ids to be tokenized, about a millisecond of work
# Threads of our own: an event loop that ends waits for those of `asyncio.to_thread`, half a minute for a long prompt.
_encoders = ThreadPoolExecutor(thread_name_prefix="encode")
# Others for grammars, of which one may take half a minute: prompts do not wait for them, and whoever sends many leaves
# a thread to others.
_compilers = FairThreads("compile", count=4, most_each=3)


async def encoding(work: Callable[[], T], size: int) -> T:
    """Returns what `work` returns. size: characters or ids that it goes through."""
    if size <= QUICK:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_encoders, work)


async def compiling(work: Callable[[], T], key: Hashable) -> T:
    """Returns what `work` returns. key: on whose account."""
    return await asyncio.wrap_future(_compilers.submit(key, work))
