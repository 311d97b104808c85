"""Compiles the form that outputs have to have, beside the event loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import cast

from engines.model import Constraint
from engines.service.beside import compiling, encoding
from engines.service.served import Form, Grammars
from roundhouse.kit.errors import FieldViolation, NotServed
from roundhouse.kit.fields import invalid
from roundhouse.v1 import generation_pb2

_AT = "sampling.constraint"
_ANY_OBJECT = '{"type": "object"}'
_COST = 100  # a constraint that is made, or an id that it takes, is as much work as so many characters of a prompt
_SHOWN = 500  # characters of what a compiler says; it may repeat the whole form


async def constraints(
    grammars: Grammars | None,
    asked: generation_pb2.Constraint,
    outputs: Sequence[Sequence[int]],
    end_ids: Collection[int],
    key: Hashable = "",
) -> list[Constraint]:
    """Returns a constraint for each output.

    outputs: the ids that each has already, which its constraint has not seen. end_ids: what ends an output. key: on
    whose account it is compiled, behind others of the same. A form that was compiled before waits for nobody.
    Raises NotServed if no form can be compiled here, InvalidArgument if this one cannot, or does not allow an output.
    """
    if grammars is None:
        lack = FieldViolation(_AT, "is not served by this engine, which has no grammar library: leave it out")
        raise NotServed(f"{lack.field}: {lack.description}", fields=[lack])
    form, texts = _form(asked)
    kept = grammars.kept(form, texts, end_ids)
    if kept is not None:
        return await encoding(lambda: _made(kept, outputs), _COST * sum(1 + len(each) for each in outputs))
    return await compiling(lambda: _compile(grammars, form, texts, outputs, end_ids), key)


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
    return _made(new, outputs)


def _made(new: Callable[[], Constraint], outputs: Sequence[Sequence[int]]) -> list[Constraint]:
    for number, output in enumerate(outputs):
        if output:
            _check_output(new(), number, output)
    return [new() for _ in outputs]


def _check_output(constraint: Constraint, choice: int, output: Sequence[int]) -> None:
    try:
        for token in output:
            constraint.accept(token)
    except Exception as error:
        field = "options.resume.choices"
        raise invalid(field, f"choice {choice} has output that {_AT} does not allow: give the one it had") from error
