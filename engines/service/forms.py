"""Compiles the form that outputs have to have, beside the event loop."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

from engines.model import Constraint
from engines.service.beside import compiling
from engines.service.served import Form, Grammars
from roundhouse.kit.errors import FieldViolation, NotServed
from roundhouse.kit.fields import invalid
from roundhouse.v1 import generation_pb2

_AT = "sampling.constraint"
_ANY_OBJECT = '{"type": "object"}'
_SHOWN = 500  # characters of what a compiler says; it may repeat the whole form


async def constraints(
    grammars: Grammars | None,
    asked: generation_pb2.Constraint,
    outputs: Sequence[Sequence[int]],
    end_ids: Collection[int],
) -> list[Constraint]:
    """Returns a constraint for each output.

    outputs: the ids that each has already, which its constraint has not seen. end_ids: what ends an output.
    Raises NotServed if no form can be compiled here, InvalidArgument if this one cannot, or does not allow an output.
    """
    if grammars is None:
        lack = FieldViolation(_AT, "is not served by this engine, which has no grammar library: leave it out")
        raise NotServed(f"{lack.field}: {lack.description}", fields=[lack])
    form, texts = _form(asked)
    return await compiling(lambda: _compile(grammars, form, texts, outputs, end_ids))


def _form(asked: generation_pb2.Constraint) -> tuple[Form, Sequence[str]]:
    kind = cast("Form", asked.WhichOneof("kind"))
    if kind == "choice":
        return kind, tuple(asked.choice.texts)
    return kind, [_ANY_OBJECT if kind == "json_object" else getattr(asked, kind)]


def _compile(
    grammars: Grammars,
    form: Form,
    texts: Sequence[str],
    outputs: Sequence[Sequence[int]],
    end_ids: Collection[int],
) -> list[Constraint]:
    try:
        new = grammars.compile(form, texts, end_ids)
    except ValueError as error:
        said = " ".join(str(error).split())[:_SHOWN]
        raise invalid(f"{_AT}.{form}", f"cannot be served ({said}): mend it") from error
    for number, output in enumerate(outputs):
        _check_output(new(), number, output)
    return [new() for _ in outputs]


def _check_output(constraint: Constraint, choice: int, output: Sequence[int]) -> None:
    try:
        for token in output:
            constraint.accept(token)
    except Exception as error:
        field = "options.resume.choices"
        raise invalid(field, f"choice {choice} has output that {_AT} does not allow: give the one it had") from error
