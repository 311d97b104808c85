"""Writes the text of one output, looks for stop texts in it, and tells its sink.

What is found here ends the output there, however much further the step thread has come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engines.loop.endings import Ending, failed
from engines.loop.interfaces import Transcript
from engines.model import End, FinishReason, PromptScored, Reread, Sampled, Sink, Tokens, Work


@dataclass(frozen=True, slots=True)
class Desk:
    """What a scribe needs besides its work."""

    open_transcript: Callable[[tuple[str, ...]], Transcript]
    on_end: Callable[[Ending], None]  # told of an end that the step thread does not know
    on_reread: Callable[[], None]
    on_fault: Callable[[BaseException], None]


class Scribe:
    """Used by one thread at a time, the text thread. Its methods do not raise: what goes wrong ends the output."""

    __slots__ = ("_desk", "_given", "_sink", "_told_count", "_transcript", "_verdict", "_work")

    def __init__(self, work: Work, sink: Sink, desk: Desk) -> None:
        self._work = work
        self._sink = sink
        self._desk = desk
        self._transcript: Transcript | None = None
        self._told_count = len(work.output)
        self._given: list[str] = []  # texts of the output that the sequence was given, while they are not told
        self._verdict: Ending | None = None  # what was found; nothing behind it is told

    def reread(self) -> None:
        """Reads the output that the sequence was given, which may hold a stop text."""
        try:
            is_over = bool(self._opened().matched_stop)
        except Exception as error:  # noqa: BLE001 - the request is told
            self._decide(failed(error))
            return
        if is_over:
            self._decide(Ending(FinishReason.STOP_STRING))
        else:
            self._desk.on_reread()

    def score(self, event: PromptScored) -> None:
        """Tells how likely the prompt was."""
        if self._verdict is None:
            try:
                self._sink(event)
            except Exception as error:  # noqa: BLE001 - the request is told
                self._decide(failed(error))

    def write(self, first_position: int, sampled: Sequence[Sampled], ending: Ending | None) -> None:
        """Tells tokens. `ending`: why the output ends with the last of them, if it does."""
        if self._verdict is None:
            try:
                self._write(first_position, sampled, None if ending is None else ending.reason)
            except Exception as error:  # noqa: BLE001 - the request is told
                self._decide(failed(error))

    def end(self, end: End) -> None:
        """Tells the end, with what is known here and not to the step thread."""
        end = replace(end, output_token_count=self._told_count)
        if self._verdict is not None:
            end = replace(
                end,
                reason=self._verdict.reason,
                error=self._verdict.error,
                matched_stop=self._matched_stop if self._verdict.reason is FinishReason.STOP_STRING else "",
                matched_token_id=None,
                cause=None,
                release=replace(end.release, steps_after=0, cancel_to_release_s=0.0),
            )
        try:
            self._end_given(end.reason)
        except Exception as error:  # noqa: BLE001 - the request is told
            if end.reason is not FinishReason.CANCELLED:
                end = replace(end, reason=FinishReason.FAILED, error=error, matched_token_id=None)
        try:
            self._sink(end)
        except Exception as error:  # noqa: BLE001 - somebody is told
            self._desk.on_fault(error)

    def _write(self, first_position: int, sampled: Sequence[Sampled], reason: FinishReason | None) -> None:
        transcript = self._transcript or self._opened()
        self._tell_given()
        texts: list[str] = []
        is_end_token = False
        for each in sampled:
            is_end_token = reason is FinishReason.STOP_TOKEN and len(texts) + 1 == len(sampled)
            texts.append("" if is_end_token and not self._work.include_stop else transcript.write(each.token))
            if transcript.matched_stop:
                break
        if reason is not None or transcript.matched_stop:
            texts[-1] += self._rest(transcript)
        count = len(texts)
        told = sampled[:count]
        ids = tuple([each.token for each in told])
        logprobs = tuple([each.logprobs for each in told if each.logprobs is not None])
        self._sink(Tokens(first_position, ids, tuple(texts), self._work.choice, logprobs))
        self._told_count = first_position + count
        if transcript.matched_stop and not is_end_token:
            self._decide(Ending(FinishReason.STOP_STRING))

    @property
    def _matched_stop(self) -> str:
        return "" if self._transcript is None else self._transcript.matched_stop

    def _opened(self) -> Transcript:
        """Returns the transcript as it was behind the output that the sequence was given."""
        transcript = self._transcript = self._desk.open_transcript(self._work.stop)
        if self._work.output:
            *before, last = self._work.output
            self._given = [transcript.write(token) for token in before]
            is_end_token = last in self._work.stop_token_ids
            self._given.append("" if is_end_token and not self._work.include_stop else transcript.write(last))
        return transcript

    def _rest(self, transcript: Transcript) -> str:
        """Returns what is left to be told of a text that has ended."""
        held = "" if transcript.matched_stop else transcript.close()
        return held + transcript.matched_stop if self._work.include_stop else held

    def _tell_given(self) -> None:
        """Tells the text of what the sequence was given, once."""
        if self._given:
            texts, self._given = tuple(self._given), []
            self._sink(Reread(texts, self._work.choice))

    def _end_given(self, reason: FinishReason) -> None:
        """Tells the text of what the sequence was given, if nothing came behind it."""
        if reason is FinishReason.FAILED or not self._work.output:
            return
        transcript = self._transcript or self._opened()
        if self._given:
            if reason is not FinishReason.CANCELLED:
                self._given[-1] += self._rest(transcript)
            self._tell_given()

    def _decide(self, verdict: Ending) -> None:
        self._verdict = verdict
        self._desk.on_end(verdict)
