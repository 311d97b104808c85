"""What is refused in a new deployment before anything is looked at closely: a request has room for millions."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.checks import MAX_TEXTS_BYTES, check_new
from roundhouse.kit.errors import InvalidArgument
from roundhouse.v1.deployment_pb2 import Deployment, EngineOptions, EnvVar
from tests.support.plane import wanted

MANY = {
    "variables": (wanted(env=[EnvVar()] * 10_000), "deployment.env"),
    "labels": (wanted(labels={f"{n}": "x" * 256 for n in range(10_000)}), "deployment.labels"),
    "annotations": (wanted(annotations={f"{n}": "x" * 256 for n in range(10_000)}), "deployment.annotations"),
}


@pytest.mark.parametrize(("deployment", "field"), MANY.values(), ids=MANY)
def test_of_too_many_none_is_looked_at(deployment: Deployment, field: str) -> None:
    with pytest.raises(InvalidArgument, match="10000 are too many: use at most") as refusal:
        check_new(deployment, "")
    assert [each.field for each in refusal.value.fields] == [field]


def with_texts(field: str, size: int) -> Deployment:
    """Sixty-four entries of so many bytes in all, none of them too long."""
    length, more = divmod(size, 64)
    fields: dict[str, Any] = {field: {f"{n:02d}": "x" * (length - 2 + (n < more)) for n in range(64)}}
    return wanted(**fields)


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_labels_and_annotations_have_a_size_in_all(field: str) -> None:
    check_new(with_texts(field, MAX_TEXTS_BYTES), "")
    with pytest.raises(InvalidArgument, match="16385 bytes are too many: use at most 16384 in all"):
        check_new(with_texts(field, MAX_TEXTS_BYTES + 1), "")


LONG = {
    "name of another form": wanted("a/" * 50_000),
    "name": wanted("a" * 100_000),
    "dtype": wanted(engine_options=EngineOptions(dtype="x" * 100_000)),
}


@pytest.mark.parametrize("deployment", LONG.values(), ids=LONG)
def test_what_is_too_long_is_not_sent_back_whole(deployment: Deployment) -> None:
    with pytest.raises(InvalidArgument) as refusal:  # it travels in a header, of which gRPC takes 8 KiB
        check_new(deployment, "")
    assert len(refusal.value.message) < 1000
