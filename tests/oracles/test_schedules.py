import copy

import pytest
import torch
from torch import nn

from balancekit.schedules import purity, relearn_strength, soft_reset
from tests.oracles import schedules as oracle


@pytest.mark.parametrize("samples", [1, 2, 30, 500])
@pytest.mark.parametrize("groups", [1, 3, 11])
def test_purity(samples: int, groups: int) -> None:
    g = torch.Generator().manual_seed(samples + groups)
    clusters = torch.randint(groups, (samples,), generator=g)
    labels = torch.randint(5, (samples,), generator=g) * 7  # not consecutive
    expected = torch.tensor(oracle.purity(clusters.tolist(), labels.tolist()), dtype=torch.float32)
    assert torch.equal(purity(clusters, labels), expected)  # the quotient of two whole numbers, rounded once


@pytest.mark.parametrize("rate", [0.0, 1.0, 3.0])
def test_relearn_strength(rate: float) -> None:
    train, val = torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [oracle.strength(a, b, rate) for a, b in zip(train.tolist(), val.tolist(), strict=True)]
    torch.testing.assert_close(
        relearn_strength(train, val, rate=rate), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 0.9951, 1.0])
@pytest.mark.parametrize("buffers", [False, True])
def test_soft_reset(strength: float, buffers: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    initial = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
        module(torch.randn(8, 3, dtype=torch.float64))
    trained = copy.deepcopy(module.state_dict())
    soft_reset(module, initial, strength, buffers=buffers)
    for name, actual in module.state_dict().items():
        now, first = trained[name].flatten().tolist(), initial[name].flatten().tolist()
        moves = "num_batches" not in name and (buffers or "running" not in name)
        expected = torch.tensor(oracle.mixed(now, first, strength) if moves else now, dtype=actual.dtype)
        torch.testing.assert_close(actual.flatten(), expected, rtol=1e-13, atol=1e-13)
