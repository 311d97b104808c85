import pytest
import torch

from engines.demo_model.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)], ids=["square", "tall", "wide"])
def test_an_update_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))

    assert values.min() > 0.3
    assert values.max() < 1.3


def test_steps_lead_downhill() -> None:
    matrix = torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    muon = Muon([matrix], lr=0.05)
    before = matrix.square().sum().item()
    for _ in range(20):
        muon.zero_grad()
        torch.autograd.backward(matrix.square().sum())
        muon.step()

    assert matrix.square().sum().item() < before / 2
