"""Writes what a keeper needs to have a request go on at another engine. Pure."""

from __future__ import annotations

from engines.service.reader import Reader
from engines.service.run import Run
from roundhouse.internal.v1 import hop_pb2
from roundhouse.kit.times import to_duration
from roundhouse.v1 import inference_service_pb2

LEAST_S = 0.001  # a duration of 0 would be refused; so little ends the request soon enough


def kept(run: Run, reader: Reader) -> hop_pb2.Kept:
    """Returns the request as another engine may be sent it, with the ids that come before what `reader` tells."""
    arrival, log = run.arrival, run.log
    assert log is not None
    written = hop_pb2.Kept(words=arrival.words)
    is_chat = isinstance(arrival.request, inference_service_pb2.ChatRequest)
    request = written.chat if is_chat else written.generate
    request.CopyFrom(arrival.request)  # type: ignore[arg-type]
    request.request_id = arrival.request_id
    if run.bound_s is not None:  # also that of its first call, which another keeper's need not have
        request.options.max_duration.CopyFrom(to_duration(max(run.bound_s - run.age_s(), LEAST_S)))
    resume = request.options.resume
    resume.prompt_token_ids.ids.extend(log.prompt)
    resume.seed = run.started.seed
    resume.fingerprint = run.first_fingerprint
    resume.tokenizer_fingerprint = run.started.tokenizer_fingerprint
    for choice in log.told:
        ids = choice.ids[: reader.position(choice.number)]
        if ids:
            resume.choices.add(choice=choice.number).output_token_ids.ids.extend(ids)
    return written
