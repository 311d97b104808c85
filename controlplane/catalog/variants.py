"""Finds the variant of a family that a user means, and says exactly what there is if there is none. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from controlplane import wire
from roundhouse.kit.errors import FieldViolation, InvalidArgument, NotFound, Resource
from roundhouse.v1 import errors_pb2
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelVariant
from roundhouse.v1.deployment_pb2 import FamilyModel

FAMILY_ID_RULE = "1 to 63 characters of [a-z0-9._-], beginning with a letter"
DEFAULT_FORMAT, DEFAULT_QUANTIZATION = "pytorch", "none"
_FAMILY_ID = re.compile(r"[a-z][a-z0-9._-]{0,62}\Z")
_NEAREST = 5  # names that are offered for one that is not known


def is_family_id(text: str) -> bool:
    """Tells whether `text` may name a family; `FAMILY_ID_RULE` says it in words."""
    return _FAMILY_ID.match(text) is not None


def family_id(model: FamilyModel) -> str:
    """Returns the bare id of the family that is meant; case does not matter."""
    return model.family.lower().removeprefix("families/")


def format_of(variant: ModelVariant) -> str:
    """Returns the format of the files of a variant."""
    return variant.format.lower() or DEFAULT_FORMAT


def quantization_of(variant: ModelVariant) -> str:
    """Returns how the files of a variant are quantized, as the catalog spells it."""
    return variant.quantization or DEFAULT_QUANTIZATION


def label(family: str, variant: ModelVariant) -> str:
    """Returns a variant as people say it, for example `qwen3 4 pytorch none`."""
    return f"{family} {variant.size_in_billions} {format_of(variant)} {quantization_of(variant)}"


def choose(family: ModelFamily, wanted: FamilyModel, field: str) -> ModelVariant:
    """Returns the variant that is meant; raises InvalidArgument (VARIANT_NOT_FOUND), listing what there is.

    field: where in the request the model stands. The format is looked at first, then the quantization, then the size,
    so that the message lists what goes with what was found.
    """
    name = family.name.removeprefix("families/")
    variants: Sequence[ModelVariant] = family.variants
    kind = wanted.format.lower() or DEFAULT_FORMAT
    found = [each for each in variants if format_of(each) == kind]
    if not found:
        raise _missing(f"{field}.format", f'"{name}" has no format "{kind}"', map(format_of, variants))
    variants, asked = found, wanted.quantization.lower() or DEFAULT_QUANTIZATION
    found = [each for each in variants if quantization_of(each).lower() == asked]
    if not found:
        said = f'"{name}" has no quantization "{asked}" in the format {kind}'
        raise _missing(f"{field}.quantization", said, map(quantization_of, variants))
    sizes = [each.size_in_billions for each in found]
    if not wanted.size_in_billions:
        if len(found) > 1:
            said = f'"{name}" has several sizes in the format {kind}, quantization {asked}, and none was named'
            raise _missing(f"{field}.size_in_billions", said, sizes)
        return found[0]
    size = _size(wanted.size_in_billions)
    fitting = next((each for each in found if _size(each.size_in_billions) == size), None)
    if fitting is None:
        said = f'"{name}" has no size "{wanted.size_in_billions}" in the format {kind}, quantization {asked}'
        raise _missing(f"{field}.size_in_billions", said, sizes)
    return fitting


def family_not_found(family: str, known: Collection[str]) -> NotFound:
    """Returns what is said of a family that the catalog does not have, with the names that come nearest."""
    nearest = difflib.get_close_matches(family, known, _NEAREST, cutoff=0.5)
    # `qwen` is far from `qwen2.5-instruct` by letters, and still what was meant.
    nearest += [each for each in sorted(known) if family and each.startswith(family) and each not in nearest]
    offered = ", ".join(nearest[:_NEAREST])
    cure = f"did you mean {offered}?" if offered else "see `roundhouse catalog list`, or register it"
    return NotFound(
        f'the catalog has no family "{family[:100]}": {cure}',
        reason=errors_pb2.ERROR_REASON_FAMILY_NOT_FOUND,
        resource=Resource("roundhouse.v1.ModelFamily", wire.FAMILY.format(family[:100])),
        metadata={"known": offered},
    )


def _missing(field: str, said: str, there: Iterable[str]) -> InvalidArgument:
    known = ", ".join(dict.fromkeys(there))
    violation = FieldViolation(field, f"{said}: use one of {known}")
    return InvalidArgument(
        f"{field}: {violation.description}",
        reason=errors_pb2.ERROR_REASON_VARIANT_NOT_FOUND,
        fields=[violation],
        metadata={"field": field.rpartition(".")[2], "known": known},
    )


def _size(spelling: str) -> str:
    """Returns one spelling of a size: `1_8` and `1.80` are `1.8`."""
    text = spelling.strip().lower().removesuffix("b").replace("_", ".")
    whole, point, rest = text.partition(".")
    rest = rest.rstrip("0")
    return f"{whole}{point}{rest}" if rest else whole
