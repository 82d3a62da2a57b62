"""The adapters against their literal re-derivation, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from balancekit.adapters import (
    CentralDifferenceConv2d,
    CrossModal,
    GatedCrossAttention,
    convolve_tokens,
    gated_attention,
    hub,
)
from balancekit.adapters._gate import _attend
from tests.oracles import adapters as oracle

F64 = torch.float64


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64)


@pytest.mark.parametrize("gate", ["query", "key"])
@pytest.mark.parametrize(("heads", "width"), [(4, 1), (2, 3), (1, 8)])
@pytest.mark.parametrize(("rows", "keys"), [(5, 5), (3, 6), (1, 1)])
def test_attention_is_equation_4(gate: str, heads: int, width: int, rows: int, keys: int) -> None:
    torch.manual_seed(heads)
    q, k, v = 3 * draw(2, heads, rows, width), draw(2, heads, keys, width), draw(2, heads, keys, width)
    confidence = torch.rand(2, rows if gate == "query" else keys, dtype=F64)
    confidence[0, 0] = 0.0
    close(gated_attention(q, k, v, confidence, gate), oracle.eq4(q, k, v, confidence, gate))


@pytest.mark.parametrize("gate", ["query", "key"])
def test_attention_without_confidence_is_ordinary(gate: str) -> None:
    torch.manual_seed(0)
    q, k, v = draw(2, 2, 4, 3), draw(2, 2, 5, 3), draw(2, 2, 5, 3)
    close(gated_attention(q, k, v, None, gate), oracle.eq4(q, k, v, None, gate))


@pytest.mark.parametrize("width", [1, 3, 8, 9])
@pytest.mark.parametrize("biased", [False, True])
def test_padding_the_heads_is_exact(monkeypatch: pytest.MonkeyPatch, width: int, biased: bool) -> None:
    widths = []

    def attention(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        widths.extend(x.shape[-1] for x in (q, k, v))
        return kernel(q, k, v, **options)

    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    torch.manual_seed(width)
    q, k, v = (draw(2, 2, 5, width).requires_grad_() for _ in range(3))
    bias = draw(2, 1, 1, 5) if biased else None
    plain, padded = _attend(q, k, v, bias, multiple=1), _attend(q, k, v, bias, multiple=8)
    assert widths == [width] * 3 + [8 if width <= 8 else 16] * 3
    close(padded, plain)
    cotangent = draw(2, 2, 5, width)
    expected = torch.autograd.grad(plain, (q, k, v), cotangent)
    for found, gradient in zip(torch.autograd.grad(padded, (q, k, v), cotangent), expected, strict=True):
        close(found, gradient)


def test_attention_gradients_are_those_of_the_oracle() -> None:
    torch.manual_seed(0)
    q, k, v = (draw(1, 2, 3, 2).requires_grad_() for _ in range(3))
    for gate in ("query", "key"):
        confidence = torch.tensor([[0.9, 0.0, 0.3]], dtype=F64)

        def attend(*qkv: torch.Tensor, gate: str = gate, u: torch.Tensor = confidence) -> torch.Tensor:
            return gated_attention(*qkv, u, gate)

        assert torch.autograd.gradcheck(attend, (q, k, v))


@pytest.mark.parametrize("theta", [0.0, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("kernel_size", [1, 3, (3, 5)])
def test_central_difference_is_two_convolutions(theta: float, kernel_size: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = CentralDifferenceConv2d(3, 4, kernel_size, theta=theta, bias=False, dtype=F64)
    image = draw(2, 3, 6, 7)
    close(conv(image), oracle.central_difference_convolution(image, conv.weight, theta))


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize("theta", [0.0, 0.5])
def test_convolution_on_tokens(prefix: int, grid: tuple[int, int], theta: float) -> None:
    torch.manual_seed(0)
    conv = CentralDifferenceConv2d(4, 5, theta=theta, bias=False, dtype=F64)
    tokens = draw(2, prefix + grid[0] * grid[1], 4)
    expected = oracle.on_tokens(tokens, conv.weight, theta, grid, prefix)
    close(convolve_tokens(tokens, conv.kernel, grid, prefix), expected)


GATES = ("query", "key", "output", "key+output")


def grown(**options: object) -> GatedCrossAttention:
    """An adapter in evaluation mode whose parameters are all random, the up-projection too."""
    adapter = GatedCrossAttention(6, dtype=F64, **options).eval()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("queries", ["other", "own"])
@pytest.mark.parametrize("conv", [None, "plain", "cdc"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_whole_adapter(gate: str, queries: str, conv: str | None, gated: bool, qk_norm: bool) -> None:
    torch.manual_seed(0)
    shape = {"gate": gate, "queries": queries, "prefix": 2, "theta": 0.5, "scale": 0.7}
    adapter = grown(other_dim=5, width=4, heads=2, conv=conv, grid=(2, 3), qk_norm=qk_norm, **shape)
    own, other = draw(2, 8, 6), draw(2, 8 if queries == "other" else 5, 5)
    trust = {
        name: torch.rand(2, tokens.shape[1], dtype=F64) if gated and side in adapter.confidence_of else None
        for name, side, tokens in (("confidence", "other", other), ("own_confidence", "own", own))
    }
    shape["theta"] = 0.5 if conv == "cdc" else 0.0
    grid = None if conv is None else (2, 3)
    expected = oracle.adapter(adapter.state_dict(), own, other, **trust, heads=2, grid=grid, **shape)
    close(adapter(own, other, **trust), expected)


def test_a_learned_scale_starts_at_one_and_scales() -> None:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(6, scale="learned", dtype=F64).eval()
    assert adapter.scale.item() == 1.0 and "scale" in adapter.state_dict()
    nn.init.normal_(adapter.up.weight)
    own, other = draw(2, 4, 6), draw(2, 4, 6)
    before = adapter(own, other)
    nn.init.constant_(adapter.scale, -2.0)
    close(adapter(own, other), -2.0 * before)


@pytest.mark.parametrize(("rows", "keys"), [(5, 5), (3, 6)])
@pytest.mark.parametrize("width", [1, 3])
def test_a_confidence_that_wants_a_gradient_is_a_channel_with_the_same_result(rows: int, keys: int, width: int) -> None:
    torch.manual_seed(0)
    q, k, v = 3 * draw(2, 2, rows, width), draw(2, 2, keys, width), draw(2, 2, keys, width)
    confidence = torch.rand(2, keys, dtype=F64)
    expected = oracle.eq4(q, k, v, confidence, "key")
    close(gated_attention(q, k, v, confidence.requires_grad_(), "key"), expected)
    confidence.detach()[0, 1] = 0.0
    close(gated_attention(q, k, v, confidence, "key"), gated_attention(q, k, v, confidence.detach(), "key"))
    with torch.no_grad():
        confidence[0, 1] = 0.5

    def attend(*qkvu: torch.Tensor) -> torch.Tensor:
        return gated_attention(*qkvu, "key")

    assert torch.autograd.gradcheck(attend, (q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), confidence))


def test_default_adapter_has_the_published_size() -> None:
    """48 adapters of the released model hold 0.96 M parameters together."""
    adapter = GatedCrossAttention(768, conv="cdc", grid=14)
    assert sum(p.numel() for p in adapter.parameters()) == 20072
    assert adapter.query.bias is None and adapter.out.bias is not None and adapter.heads == 8


@pytest.mark.parametrize("gate", GATES)
def test_topology_of_equations_1_to_3(gate: str) -> None:
    torch.manual_seed(0)
    names = ("rgb", "depth", "ir")
    cross = CrossModal(names, hub("rgb", names), lambda: grown(width=4, heads=4, gate=gate))
    x = {name: draw(2, 3, 6) for name in names}
    u = {name: torch.rand(2, 3, dtype=F64) for name in names}

    def a(source: str, target: str) -> torch.Tensor:
        state = cross.adapters[f"{source}_to_{target}"].state_dict()
        return oracle.adapter(state, x[target], x[source], u[source], u[target], heads=4, gate=gate)

    expected = [a("depth", "rgb") + a("ir", "rgb"), a("rgb", "depth"), a("rgb", "ir")]
    found = cross(torch.cat([x[name] for name in names]), torch.cat([u[name] for name in names]))
    close(found, torch.cat(expected))
    for name, delta in cross(x, u).items():
        close(delta, expected[names.index(name)])
