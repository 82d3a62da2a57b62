"""ConvAdapter, CDCAdapter and AMA against their literal re-derivation, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from balancekit.adapters import AMA, CDCAdapter, ConvAdapter, Tap, missing
from tests.oracles import conv_adapters as oracle

F64 = torch.float64
NAMES = ("rgb", "depth", "ir", "thermal")
layouts = pytest.mark.parametrize(("grid", "prefix"), [((1, 1), 0), ((2, 3), 1), ((3, 2), 2), ((1, 4), 1)])


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


def grown(adapter: nn.Module) -> nn.Module:
    """The adapter in evaluation mode with random parameters, the up-projection's too."""
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter.eval()


@layouts
def test_conv_adapter(grid: tuple[int, int], prefix: int) -> None:
    torch.manual_seed(0)
    adapter = grown(ConvAdapter(5, width=3, grid=grid, prefix=prefix, dtype=F64))
    tokens = torch.randn(2, prefix + grid[0] * grid[1], 5, dtype=F64)
    close(adapter(tokens), oracle.conv_adapter(adapter.state_dict(), tokens, grid, prefix))


@layouts
@pytest.mark.parametrize("theta", [0.0, 0.7, 1.0])
def test_cdc_adapter(grid: tuple[int, int], prefix: int, theta: float) -> None:
    torch.manual_seed(0)
    adapter = grown(CDCAdapter(5, theta=theta, width=3, grid=grid, prefix=prefix, dtype=F64))
    tokens = torch.randn(2, prefix + grid[0] * grid[1], 5, dtype=F64)
    close(adapter(tokens), oracle.conv_adapter(adapter.state_dict(), tokens, grid, prefix, theta))


@layouts
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_ama(grid: tuple[int, int], prefix: int, count: int) -> None:
    torch.manual_seed(count)
    adapter = grown(AMA(NAMES[:count], 5, width=3, grid=grid, prefix=prefix, dtype=F64))
    tap = Tap(adapter.gate, lambda w: w)
    tokens = torch.randn(2, prefix + count * grid[0] * grid[1], 5, dtype=F64)
    delta, weights = oracle.ama(adapter.state_dict(), tokens, count, grid, prefix)
    close(adapter(tokens), delta)
    close(tap.value, weights)


@layouts
@pytest.mark.parametrize("filler", [0.0, torch.nan])
def test_ama_with_missing_modalities(grid: tuple[int, int], prefix: int, filler: float) -> None:
    torch.manual_seed(0)
    adapter = grown(AMA(NAMES[:3], 5, width=3, grid=grid, prefix=prefix, dtype=F64))
    tap = Tap(adapter.gate, lambda w: w)
    patches = grid[0] * grid[1]
    tokens = torch.randn(4, prefix + 3 * patches, 5, dtype=F64)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)  # by sample
    for sample, modality in (~present).nonzero().tolist():
        first = prefix + modality * patches
        tokens[sample, first : first + patches] = filler
    delta, weights = oracle.ama(adapter.state_dict(), tokens, 3, grid, prefix, present.tolist())
    with missing(adapter, present.T):
        close(adapter(tokens), delta)
    close(tap.value, weights)


@pytest.mark.parametrize("lacks", [False, True])
def test_gradients_of_ama_are_those_of_its_values(lacks: bool) -> None:
    torch.manual_seed(0)
    adapter = grown(AMA(NAMES[:2], 3, width=2, grid=(1, 2), prefix=1, dtype=F64))
    names, parameters = zip(*adapter.named_parameters(), strict=True)
    present = torch.tensor([[True, True], [True, not lacks]])

    def run(tokens: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        with missing(adapter, present):
            return torch.func.functional_call(adapter, dict(zip(names, values, strict=True)), tokens)

    tokens = torch.randn(2, 5, 3, dtype=F64).requires_grad_()
    assert torch.autograd.gradcheck(run, (tokens, *parameters))


def test_gradients_of_cdc_adapter_are_those_of_its_values() -> None:
    torch.manual_seed(0)
    adapter = grown(CDCAdapter(3, width=2, grid=2, dtype=F64))
    names, parameters = zip(*adapter.named_parameters(), strict=True)

    def run(tokens: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(adapter, dict(zip(names, values, strict=True)), tokens)

    assert torch.autograd.gradcheck(run, (torch.randn(2, 5, 3, dtype=F64).requires_grad_(), *parameters))


def test_sizes() -> None:
    """768 → 8 → 768 with biases, a 3×3 kernel without, for AMA on three times the channels, and a gate without bias."""
    ends = 768 * 8 + 8 + 8 * 768 + 768
    for adapter, inner in (
        (ConvAdapter(768, grid=14), 8 * 8 * 9),
        (CDCAdapter(768, grid=14), 8 * 8 * 9),
        (AMA(NAMES[:3], 768, grid=14), 24 * 8 * 9 + 24 * 3),
    ):
        assert sum(p.numel() for p in adapter.parameters()) == ends + inner
        assert adapter.conv.bias is None and adapter.dropout.p == 0.1
    assert CDCAdapter(768, grid=14).theta == 0.7
