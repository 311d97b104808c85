"""Which variant a user means, and what is said when there is none."""

from __future__ import annotations

import pytest

from controlplane.catalog.builtin import builtin_families
from controlplane.catalog.checks import check_family
from controlplane.catalog.variants import choose, family_not_found, is_family_id
from roundhouse.kit.errors import InvalidArgument
from roundhouse.kit.fields import FieldCheck
from roundhouse.v1 import errors_pb2
from roundhouse.v1.catalog_pb2 import ModelFamily, ModelVariant
from roundhouse.v1.deployment_pb2 import FamilyModel

BUILTIN = builtin_families()
FAMILY = ModelFamily(
    name="families/tiny1.5-chat",
    variants=[
        ModelVariant(size_in_billions="0.6"),
        ModelVariant(size_in_billions="1.8"),
        ModelVariant(size_in_billions="1.8", format="gptq", quantization="Int4"),
        ModelVariant(size_in_billions="1.8", format="gptq", quantization="Int8"),
        ModelVariant(size_in_billions="7", format="awq", quantization="Int4"),
    ],
)


@pytest.mark.parametrize("family", BUILTIN.values(), ids=BUILTIN)
def test_a_family_that_ships_could_be_registered(family: ModelFamily) -> None:
    check = FieldCheck()
    check_family(check, family)
    check.raise_if_any()
    assert family.is_builtin
    assert family.description
    assert family.abilities


def test_families_that_ship_stand_by_name_and_name_no_repository_twice() -> None:
    assert list(BUILTIN) == sorted(BUILTIN)
    named = [
        location.repository.id
        for family in BUILTIN.values()
        for variant in family.variants
        for location in variant.locations
    ]
    assert sorted(set(named)) == sorted(named)


@pytest.mark.parametrize(
    "family",
    [
        "qwen2.5-instruct",
        "qwen3",
        "llama-3.1-instruct",
        "mistral-instruct-v0.3",
        "gemma-3-it",
        "deepseek-r1",
        "gpt-oss",
    ],
)
def test_the_families_that_people_launch_are_there(family: str) -> None:
    assert family in BUILTIN


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (FamilyModel(size_in_billions="0.6"), 0),
        (FamilyModel(size_in_billions="1_8", format="pytorch", quantization="none"), 1),
        (FamilyModel(size_in_billions="1.80B", format="PyTorch", quantization="NONE"), 1),
        (FamilyModel(size_in_billions="1.8", format="gptq", quantization="int4"), 2),
        (FamilyModel(format="gptq", quantization="INT8"), 3),
        (FamilyModel(format="awq", quantization="Int4"), 4),
    ],
    ids=["defaults", "an underscore", "case and zeros", "quantized", "the only size", "another format"],
)
def test_a_variant_is_found(wanted: FamilyModel, index: int) -> None:
    assert choose(FAMILY, wanted, "model") == FAMILY.variants[index]


@pytest.mark.parametrize(
    ("wanted", "field", "known"),
    [
        (FamilyModel(format="gguf"), "format", "pytorch, gptq, awq"),
        (FamilyModel(size_in_billions="1.8", format="gptq"), "quantization", "Int4, Int8"),
        (FamilyModel(), "size_in_billions", "0.6, 1.8"),
        (FamilyModel(size_in_billions="70"), "size_in_billions", "0.6, 1.8"),
        (FamilyModel(size_in_billions="70", format="awq", quantization="Int4"), "size_in_billions", "7"),
    ],
    ids=["no such format", "no such quantization", "several sizes", "no such size", "no such size in this format"],
)
def test_what_there_is_not_is_said_with_what_there_is(wanted: FamilyModel, field: str, known: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        choose(FAMILY, wanted, "deployment.model.family")
    error = refused.value
    assert error.own_reason == errors_pb2.ERROR_REASON_VARIANT_NOT_FOUND
    assert [each.field for each in error.fields] == [f"deployment.model.family.{field}"]
    assert error.metadata == {"field": field, "known": known}
    assert error.message.endswith(f"use one of {known}")


@pytest.mark.parametrize(
    ("family", "offered"),
    [("qwen4", "qwen3"), ("lama-3.1-instruct", "llama-3.1-instruct"), ("mixtral", "mixtral-v0.1"), ("phi", "phi-4")],
)
def test_the_nearest_names_are_offered(family: str, offered: str) -> None:
    error = family_not_found(family, BUILTIN)
    assert error.own_reason == errors_pb2.ERROR_REASON_FAMILY_NOT_FOUND
    assert offered in error.metadata["known"].split(", ")
    assert offered in error.message


def test_a_name_that_is_near_to_none_gets_no_offer() -> None:
    assert family_not_found("zzz", BUILTIN).metadata == {"known": ""}


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("qwen1.5-chat", True),
        ("a_b", True),
        ("Qwen", False),
        ("1.5", False),
        ("a/b", False),
        ("", False),
        ("a" * 64, False),
    ],
)
def test_an_id_of_a_family_may_hold_dots(name: str, holds: bool) -> None:
    assert is_family_id(name) == holds
