"""What is wrong with what a report says of a node's cache, whatever the state. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roundhouse.internal.v1.agent_service_pb2 import CachedModelFacts
from roundhouse.kit.fields import FieldCheck

MAX_CACHED_MODELS = 1024
MAX_REFERENCES = 16
MAX_TEXT = 1000  # characters of a reference or a message
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def check_cached(check: FieldCheck, cached: Sequence[CachedModelFacts]) -> None:
    """Notes models that no cache can hold, and more than a report may tell of."""
    count = len(cached)
    if not check.require(
        count <= MAX_CACHED_MODELS, "cached_models", f"{count} are too many: report {MAX_CACHED_MODELS}"
    ):
        return
    for index, each in enumerate(cached):
        key, texts = each.key, (*each.references, each.deletion_message)
        named = len(key.repository) <= 200 and _REPOSITORY.match(key.repository) and _COMMIT.match(key.commit)
        fits = len(each.references) <= MAX_REFERENCES and all(len(text) <= MAX_TEXT for text in texts)
        if not (named and fits and each.size_bytes >= 0 and each.file_count >= 0):
            cure = "report a repository, a whole commit, few references and no negative sizes"
            check.require(False, f"cached_models[{index}]", f"is malformed: {cure}")
