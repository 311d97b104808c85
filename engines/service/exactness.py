"""Whether a run gives what the first run of its request would have given. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engines.service.served import Served
from roundhouse.kit.errors import NotReady
from roundhouse.v1 import errors_pb2, generation_pb2

# No engine has such a fingerprint. So nothing that goes on behind what may differ passes for exact, not even on the
# engine of the first run.
APPROXIMATE = "approximate:"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run goes on with."""

    fingerprint: str  # for those that go on behind it
    exactness: generation_pb2.Exactness


def lineage(options: generation_pb2.RequestOptions, served: Served) -> Lineage:
    """Returns it; raises NotReady if this engine must not go on with it.

    Without output there is nothing that others in the batch could have had a part in, so an equal fingerprint will do.
    """
    if not options.HasField("resume"):
        return Lineage(served.fingerprint, generation_pb2.EXACTNESS_EXACT)
    resume = options.resume
    if resume.tokenizer_fingerprint and resume.tokenizer_fingerprint != served.tokenizer_fingerprint:
        raise _differs("its tokenizer is another than that of the first run: ids would mean other text")
    is_equal = resume.fingerprint == served.fingerprint
    has_output = any(each.output_token_ids.ids for each in resume.choices)
    if is_equal and (served.is_batch_invariant or not has_output):
        return Lineage(served.fingerprint, generation_pb2.EXACTNESS_EXACT)
    if resume.fingerprint and options.failover != generation_pb2.FAILOVER_POLICY_APPROXIMATE_OK:
        what = "its tokens depend on what else it computes" if is_equal else "its fingerprint is another"
        raise _differs(f"{what}, so the rest may differ")
    return Lineage(APPROXIMATE + resume.fingerprint.removeprefix(APPROXIMATE), generation_pb2.EXACTNESS_APPROXIMATE)


def _differs(why: str) -> NotReady:
    message = f"this engine cannot go on with the request, {why}: pick another one, or allow APPROXIMATE_OK"
    return NotReady(message, reason=errors_pb2.ERROR_REASON_FINGERPRINT_DIFFERS)
