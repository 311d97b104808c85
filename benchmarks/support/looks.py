"""Looks at where a thread of this process is in Python code, every millisecond or so."""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType

from benchmarks.support.paths import ROOT

PERIOD_S = 0.001
_OURS = str(ROOT / "engines")
_LIBRARY = f"{sysconfig.get_path('stdlib')}/"


class Watcher:
    """Counts where a thread is, until the block is left."""

    def __init__(self, thread_name: str) -> None:
        self.lines: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()  # of ours, with all that they call
        [self._ident] = [thread.ident for thread in threading.enumerate() if thread.name == thread_name]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(PERIOD_S / 10)  # else the thread is seen only where it lets others run
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        sys.setswitchinterval(self._interval_s)

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_S):
            if self._ident is not None and (frame := sys._current_frames().get(self._ident)) is not None:
                frames = list(_outward(frame))
                self.lines[_line(frames[0])] += 1
                self.functions.update({_function(each) for each in frames if each.f_code.co_filename.startswith(_OURS)})


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _line(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"


def _function(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)} {frame.f_code.co_qualname}"


def _short(path: str) -> str:
    return path.removeprefix(f"{ROOT}/").removeprefix(_LIBRARY).rpartition("site-packages/")[2]
