"""Models on what there is: everything runs on the CPU, and once more on a GPU where there is one."""

from functools import cache
from pathlib import Path

import pytest
import torch

from tests.support.tiny_models import write_tiny_model
from tests.unit.engines.torch_lm.cuda.models import Load, Model, model_of


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory, device: str) -> Load:
    @cache
    def made(family: str, attention: str = "auto") -> Model:
        torch.set_num_threads(1)  # as an engine of a small machine; more of them only wait for one another here
        directory: Path = write_tiny_model(tmp_path_factory.mktemp(family), family)
        return model_of(directory, device, attention=attention)

    return made
