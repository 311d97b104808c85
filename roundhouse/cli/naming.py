"""Which model a launch names, and what its deployment is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from roundhouse.kit.names import ID_RULE, is_id
from roundhouse.options.engine_options import WORDS

BUILTINS = ("demo",)
_FILES = ("pytorch",)  # what a directory and a model of ours hold
_ENGINES_OWN = WORDS["quantization"]


@dataclass(frozen=True, slots=True)
class Named:
    """What the flags say of a model, as they say it."""

    positional: str | None
    uid: str | None
    model: str | None
    path: Path | None
    size: str | None
    file_format: str | None
    quantization: str | None

    def deployment(self) -> str:
        """Returns the id of the deployment; raises click.UsageError if there is none, or two."""
        names = {each for each in (self.uid, self.positional if self._is_model_elsewhere else None) if each}
        if len(names) > 1:
            raise click.UsageError(f"two names, {self.positional} and {self.uid}: give one")
        if names:
            return names.pop()
        if self._model is None and self.path is not None:
            raise click.UsageError("no name: give one, as in roundhouse launch NAME --model-path DIR")
        return derived(self._require_model())

    def source(self) -> dict[str, Any]:
        """Returns the model as `client.deployment` takes it; raises click.UsageError for what no model can be."""
        if self.path is not None:
            self._check_files("--model-path names files")
            return {"path": str(self.path.absolute())}
        model = self._require_model()
        if model in BUILTINS:
            self._check_files(f"{model} ships with us as it is")
            return {"builtin": model}
        if "/" in model:
            self._check_files(f"{model} names files")
            repository, at, revision = model.partition("@")
            return {"repository": repository, "revision": revision if at else None}
        return {
            "family": model,
            "size_in_billions": self.size,
            "model_format": self.file_format,
            "model_quantization": self.quantization,
        }

    def engine_quantization(self) -> str | None:
        """Returns how the engine is to keep weights: of a model of the catalog, `-q` says which files are meant."""
        if self.quantization is None or "family" in self.source():
            return None
        word = self.quantization.lower()
        if word not in _ENGINES_OWN:
            words = ", ".join(repr(each) for each in _ENGINES_OWN)
            hint = "'-q' / '--quantization'"
            raise click.BadParameter(f"{self.quantization!r} is not one of {words}.", param_hint=hint)
        return word

    @property
    def _is_model_elsewhere(self) -> bool:
        return self.model is not None or self.path is not None

    @property
    def _model(self) -> str | None:
        return self.model if self._is_model_elsewhere else self.positional

    def _require_model(self) -> str:
        if not self._model:
            raise click.UsageError("no model: name one of the catalog, as qwen3, or demo, or give --model-path DIR")
        return self._model

    def _check_files(self, why: str) -> None:
        if self.size is not None:
            raise click.UsageError(f"--size-in-billions is for a model of the catalog, and {why}: leave it out")
        if self.file_format is not None and self.file_format.lower() not in _FILES:
            raise click.UsageError(
                f"--model-format {self.file_format} is for a model of the catalog, and {why}: leave it out"
            )


def derived(model: str) -> str:
    """Returns an id for a deployment of a model, as `qwen1-5-chat`; raises click.UsageError if none is like it."""
    found = re.sub(r"[^a-z0-9]+", "-", model.partition("@")[0].rpartition("/")[2].lower()).strip("-")[:63].rstrip("-")
    if not is_id(found):
        raise click.UsageError(f'"{model}" cannot name its deployment, give --model-uid: {ID_RULE}')
    return found
