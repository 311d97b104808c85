"""What is wrong with a family or with a source of a model, whatever the state. Pure; violations are named at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

from controlplane import wire
from controlplane.catalog.variants import FAMILY_ID_RULE, family_id, is_family_id, label
from roundhouse.kit.errors import FieldViolation, NotServed
from roundhouse.kit.fields import FieldCheck
from roundhouse.kit.names import is_id
from roundhouse.v1.catalog_pb2 import ModelAbility, ModelFamily, ModelLocation, ModelVariant
from roundhouse.v1.deployment_pb2 import FamilyModel, HubRepository, ModelSource

MAX_VARIANTS = 256
MAX_LOCATIONS = 16
MAX_DESCRIPTION = 500
MAX_TEMPLATE_BYTES = 64 * 1024
MAX_FAMILY_BYTES = 256 * 1024  # a page of a list stays near 1 MiB, and a value of the store below it
_SIZE = re.compile(r"\d{1,6}(\.\d{1,6})?\Z")
_WORD = re.compile(r"[A-Za-z0-9._-]{1,32}\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z")


def check_source(check: FieldCheck, source: ModelSource, field: str) -> None:
    """Notes a source of a model that no node could look up."""
    kind = source.WhichOneof("source")
    if not check.require(kind is not None, field, "is missing: set family, repository, path or builtin"):
        return
    if kind == "builtin":
        cure = "name a builtin model, for example demo"
        check.require(is_id(source.builtin), f"{field}.builtin", f'"{source.builtin[:100]}" is not an id: {cure}')
    elif kind == "path":
        _check_path(check, source.path, f"{field}.path")
    elif kind == "repository":
        _check_repository(check, source.repository, f"{field}.repository")
    else:
        check_family_model(check, source.family, f"{field}.family")


def check_family_model(check: FieldCheck, model: FamilyModel, field: str) -> None:
    """Notes a name that no family can have; which there are is looked up later."""
    named = is_family_id(family_id(model))
    rule = f'"{model.family[:100]}" is no name of a family: use {FAMILY_ID_RULE}'
    check.require(named, f"{field}.family", rule)
    for name in ("size_in_billions", "format", "quantization"):
        value = getattr(model, name)
        fits = not value or _WORD.match(value) is not None
        cure = "use 1 to 32 characters of [A-Za-z0-9._-]"
        check.require(fits, f"{field}.{name}", f'"{value[:100]}" is malformed: {cure}')


def check_family(check: FieldCheck, family: ModelFamily) -> None:
    """Notes what is wrong with a family that is to be registered."""
    size = family.ByteSize()
    if not check.require(size <= MAX_FAMILY_BYTES, "family", f"{size} bytes are too many: use {MAX_FAMILY_BYTES}"):
        return
    ids = wire.FAMILY.match(family.name)
    form = f'"{family.name[:100]}" is malformed: use {wire.FAMILY.pattern}, an id of {FAMILY_ID_RULE}'
    check.require(ids is not None and is_family_id(ids[0]), "family.name", form)
    length, template_bytes = len(family.description), len(family.chat_template.encode())
    check.require(
        length <= MAX_DESCRIPTION, "family.description", f"{length} characters are too many: use {MAX_DESCRIPTION}"
    )
    fits = template_bytes <= MAX_TEMPLATE_BYTES
    check.require(fits, "family.chat_template", f"{template_bytes} bytes are too many: use {MAX_TEMPLATE_BYTES}")
    _check_context(check, family.context_tokens, "family.context_tokens")
    known = set(ModelAbility.values()) - {0}
    for index, each in enumerate(family.abilities):
        check.require(each in known, f"family.abilities[{index}]", f"{each} is unknown: use one of the contract")
    count = len(family.variants)
    if check.require(
        1 <= count <= MAX_VARIANTS, "family.variants", f"{count} is out of range: use 1 to {MAX_VARIANTS}"
    ):
        for index, variant in enumerate(family.variants):
            _check_variant(check, variant, f"family.variants[{index}]")
        for index, again in _repeated(family):
            check.require(False, f"family.variants[{index}]", f'"{again}" is there twice: name each once')


def check_family_served(family: ModelFamily) -> None:
    """Raises NotServed for what this version cannot act upon."""
    fields = [
        FieldViolation(f"family.variants[{index}].files", "is not served yet: leave it out")
        for index, each in enumerate(family.variants)
        if each.files
    ]
    if fields:
        raise NotServed("; ".join(f"{each.field}: {each.description}" for each in fields), fields=fields)


def _check_variant(check: FieldCheck, variant: ModelVariant, field: str) -> None:
    size = variant.size_in_billions
    check.require(
        _SIZE.match(size) is not None,
        f"{field}.size_in_billions",
        f'"{size[:100]}" is no size: use billions of parameters, for example 4 or 0.6',
    )
    for name in ("format", "quantization"):
        value = getattr(variant, name)
        fits = not value or _WORD.match(value) is not None
        cure = "use 1 to 32 characters of [A-Za-z0-9._-]"
        check.require(fits, f"{field}.{name}", f'"{value[:100]}" is malformed: {cure}')
    _check_context(check, variant.context_tokens, f"{field}.context_tokens")
    count = len(variant.locations)
    if check.require(
        1 <= count <= MAX_LOCATIONS, f"{field}.locations", f"{count} is out of range: use 1 to {MAX_LOCATIONS}"
    ):
        for index, location in enumerate(variant.locations):
            _check_location(check, location, f"{field}.locations[{index}]")


def _check_location(check: FieldCheck, location: ModelLocation, field: str) -> None:
    kind = location.WhichOneof("location")
    if not check.require(kind is not None, field, "is missing: set repository or path"):
        return
    if kind == "path":
        _check_path(check, location.path, f"{field}.path")
    else:
        _check_repository(check, location.repository, f"{field}.repository")


def _check_path(check: FieldCheck, path: str, field: str) -> None:
    good = path.startswith("/") and "\0" not in path and len(path.encode()) <= 4096
    check.require(good, field, f'"{path[:200]}" is not an absolute path: begin it with /')


def _check_repository(check: FieldCheck, repository: HubRepository, field: str) -> None:
    name, revision = repository.id, repository.revision
    # The hub gives no such names, and a cache spells the slash as two hyphens.
    good = len(name) <= 200 and _REPOSITORY.match(name) is not None and "--" not in name and ".." not in name
    check.require(good, f"{field}.id", f'"{name[:200]}" is no repository: use the form owner/name')
    good = not revision or (_REVISION.match(revision) is not None and ".." not in revision)
    cure = "use a branch, a tag or a commit"
    check.require(good, f"{field}.revision", f'"{revision[:100]}" is malformed: {cure}')


def _check_context(check: FieldCheck, tokens: int, field: str) -> None:
    check.require(tokens == 0 or tokens >= 16, field, f"{tokens} is out of range: use 16 or more, or leave it out")


def _repeated(family: ModelFamily) -> Iterator[tuple[int, str]]:
    seen = set()
    for index, each in enumerate(family.variants):
        name = label(each.size_in_billions, each).lower()
        if name in seen:
            yield index, label("", each).strip()
        seen.add(name)
