"""What one stream has told, and what it takes to have its request go on at another engine.

Messages pass as bytes and are kept as bytes; they are read now and then, many together, and when somebody has to know.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Iterable, Sequence

from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.chain import EMPTY, chain
from roundhouse.kit.times import from_duration, to_duration
from roundhouse.v1 import generation_pb2, inference_service_pb2, receipt_pb2

READ_AT = 64 * 1024  # bytes; some thousand tokens, which take a millisecond to read
LEAST_S = 0.001  # what is over is for the engine to say
Event = generation_pb2.GenerationEvent
Request = inference_service_pb2.GenerateRequest | inference_service_pb2.ChatRequest


class Gap(Exception):
    """What came does not fit behind what was told: somebody is not who it should be."""


def bound(request: Request, left_s: float | None) -> None:
    """Writes into a request for how long it may go on; None: nothing bounds it."""
    if left_s is not None:
        request.options.max_duration.CopyFrom(to_duration(max(LEAST_S, left_s)))


class Record:
    """Belongs to one stream, over all engines that it is read from."""

    def __init__(self, kept: hop_pb2.Kept, now_s: float) -> None:
        self._unread: list[bytes] = []
        self._unread_size = 0
        self._outputs: dict[int, array[int]] = {}
        self._finished: set[int] = set()
        self._piece_count = 0  # of the prompt, that were told; before all else
        self._piece_count_again = 0  # by the engine that goes on
        self._has_usage = False
        self.renew(kept, now_s)
        self._first_fingerprint = self.fingerprint
        for each in self._request.options.resume.choices:
            self._outputs[each.choice] = array("i", each.output_token_ids.ids)

    def renew(self, kept: hop_pb2.Kept, now_s: float) -> None:
        """Takes in what the engine that runs the request now says of it."""
        is_chat = kept.WhichOneof("request") == "chat"
        self.method = "Chat" if is_chat else "Generate"
        self._request: Request = kept.chat if is_chat else kept.generate
        self._kept_s = now_s
        self._piece_count_again = 0
        self.words = kept.words

    def is_of(self, kept: hop_pb2.Kept) -> bool:
        """Tells whether an engine runs this very request, and not another one of the same name."""
        other = (kept.chat if kept.WhichOneof("request") == "chat" else kept.generate).options.resume
        own = self._request.options.resume
        return other.seed == own.seed and other.prompt_token_ids == own.prompt_token_ids

    def left_s(self, now_s: float) -> float | None:
        """Returns for how long the request may go on; None if nothing bounds it."""
        if not self.options.HasField("max_duration"):
            return None
        return from_duration(self.options.max_duration) - (now_s - self._kept_s)

    @property
    def is_exact(self) -> bool:
        """Tells whether what goes on is what the first run would have given."""
        return self.fingerprint == self._first_fingerprint

    @property
    def options(self) -> generation_pb2.RequestOptions:
        """How the request is treated."""
        return self._request.options

    @property
    def fingerprint(self) -> str:
        """What an engine has to be equal to."""
        return self._request.options.resume.fingerprint

    @property
    def is_complete(self) -> bool:
        """Tells whether all was told."""
        self._read()
        return self._has_usage

    def add(self, message: bytes) -> None:
        """Takes a message that is told as it is."""
        self._unread.append(message)
        self._unread_size += len(message)
        if self._unread_size > READ_AT:
            self._read()

    def unseen(self, events: Iterable[Event]) -> list[Event]:
        """Takes events of an engine that goes on, and returns those that were not told before. Raises Gap."""
        self._read()
        told = []
        for each in events:
            if self._is_new(each):
                self._take([each])
                told.append(each)
        return told

    def positions(self) -> list[receipt_pb2.ChoicePosition]:
        """Returns how far each choice is told."""
        self._read()
        return [
            receipt_pb2.ChoicePosition(choice=choice, output_token_count=len(ids))
            for choice, ids in sorted(self._outputs.items())
        ]

    def resuming(self, failover: generation_pb2.FailoverPolicy, now_s: float) -> Request:
        """Returns the request that goes on behind what was told."""
        self._read()
        request = copy.deepcopy(self._request)
        options, sampling = request.options, request.sampling
        options.failover = failover
        bound(request, self.left_s(now_s))
        del options.resume.choices[:]
        if not self._is_ranked:  # of which nothing is told before all is known: it is made again
            for choice, ids in sorted(self._outputs.items()):
                options.resume.choices.add(choice=choice, output_token_ids={"ids": ids})
        if self._outputs or self._finished:  # else some of the prompt may not have been told
            sampling.ClearField("prompt_logprobs")
            if isinstance(request, inference_service_pb2.GenerateRequest):
                request.echo = False
        return request

    def reached(self) -> list[receipt_pb2.ChoicePosition]:
        """Returns how far every choice came, also those of which nothing is told; none if what is computed is not told.

        What its engine may have computed beyond that is not known here.
        """
        if self._is_ranked:
            return []
        self._read()
        return [
            receipt_pb2.ChoicePosition(choice=choice, output_token_count=len(self._outputs.get(choice, ())))
            for choice in range(self._choice_count)
        ]

    def cancelled(self, cause: receipt_pb2.CancelCause) -> list[Event]:
        """Returns the end of a request that was cancelled while no engine had it."""
        self._read()
        open_ = [choice for choice in range(self._choice_count) if choice not in self._finished]
        ends = [Event(finished=self._cut(choice, cause)) for choice in open_]
        usage = generation_pb2.Usage(
            prompt_token_count=self.prompt_token_count,
            output_token_count=sum(map(len, self._outputs.values())),
        )
        return [*ends, Event(usage=usage)]

    @property
    def prompt_token_count(self) -> int:
        """Tokens of the prompt."""
        return len(self._request.options.resume.prompt_token_ids.ids)

    @property
    def _choice_count(self) -> int:
        return self._request.sampling.n if self._request.sampling.HasField("n") else 1

    @property
    def _is_ranked(self) -> bool:
        return self._request.sampling.best_of > max(1, self._request.sampling.n)

    def _cut(self, choice: int, cause: receipt_pb2.CancelCause) -> generation_pb2.Finished:
        ids: Sequence[int] = self._outputs.get(choice, ())
        return generation_pb2.Finished(
            choice=choice,
            reason=generation_pb2.FINISH_REASON_CANCELLED,
            output_token_count=len(ids),
            token_hash=chain(EMPTY, ids),
            exactness=(generation_pb2.EXACTNESS_EXACT if self.is_exact else generation_pb2.EXACTNESS_APPROXIMATE),
            cancel_cause=cause,
        )

    def _read(self) -> None:
        if self._unread:
            packed, self._unread, self._unread_size = b"".join(self._unread), [], 0
            self._take(inference_service_pb2.GenerateResponse.FromString(packed).events)

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    delta = event.delta
                    output = self._outputs.setdefault(delta.choice, array("i"))
                    if delta.first_position != len(output):
                        raise Gap
                    output.extend(delta.token_ids)
                case "finished":
                    self._finished.add(event.finished.choice)
                case "prompt":
                    self._piece_count += 1
                case "usage":
                    self._has_usage = True

    def _is_new(self, event: Event) -> bool:
        match event.WhichOneof("event"):
            case "delta":
                told = len(self._outputs.get(event.delta.choice, ()))
                return event.delta.first_position + len(event.delta.token_ids) > told
            case "finished":
                return event.finished.choice not in self._finished
            case "prompt":
                self._piece_count_again += 1  # prompts are cut alike everywhere
                return self._piece_count_again > self._piece_count
            case "usage":
                return not self._has_usage
            case _:
                return True
