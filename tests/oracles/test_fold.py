"""The folded attention against the explicit softmax over its n × n map: values, gradients, low precision, memory."""

import math

import pytest
import torch
from instruments.meters import peak_bytes
from torch import Tensor

from balancekit.adapters import gated_attention


def explicit(q: Tensor, k: Tensor, v: Tensor, confidence: Tensor, gate: str) -> Tensor:
    """Eq. 4 of MMDG (arXiv 2402.19298) with its map written out; keys weighted by their confidence as an extension."""
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if gate == "query":
        return torch.softmax(logits * confidence[:, None, :, None].expand(logits.shape).to(q.dtype), -1) @ v
    weights = torch.exp(logits - logits.amax(-1, keepdim=True)) * confidence[:, None, None, :].to(q.dtype)
    return weights / weights.sum(-1, keepdim=True) @ v


def draw(heads: int, width: int, rows: int, keys: int, gate: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(heads * 100 + width)
    shapes = (2, heads, rows, width), (2, heads, keys, width), (2, heads, keys, width)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    confidence = 0.05 + 0.95 * torch.rand(
        2, rows if gate == "query" else keys, generator=generator, dtype=torch.float64
    )
    return [x.to(dtype).requires_grad_() for x in (q, k, v, confidence)]


def both(attention: object, inputs: list[Tensor], gate: str) -> list[Tensor]:
    """The values, and the gradients of q, k, v and the confidence."""
    out = attention(*inputs, gate)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, cotangent)]


def largest(found: Tensor, exact: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((found.double() - exact.double()).abs().max() / exact.double().abs().max())


def relative(found: Tensor, exact: Tensor) -> float:
    """The norm of the difference, over the norm."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


SHAPES = [(8, 1, 197, 197), (2, 4, 64, 197), (8, 8, 197, 50), (12, 64, 65, 65), (1, 3, 1, 7)]


@pytest.mark.parametrize("gate", ["query", "key"])
@pytest.mark.parametrize(("heads", "width", "rows", "keys"), SHAPES)
def test_values_and_gradients(gate: str, heads: int, width: int, rows: int, keys: int) -> None:
    doubles = draw(heads, width, rows, keys, gate, torch.float64)
    exact, found = both(explicit, doubles, gate), both(gated_attention, doubles, gate)
    assert max(map(largest, found, exact)) < 1e-12
    floats = draw(heads, width, rows, keys, gate, torch.float32)
    exact = both(explicit, [x.detach().double().requires_grad_() for x in floats], gate)
    found = both(gated_attention, floats, gate)
    assert max(map(relative, found, exact)) < 1e-6


@pytest.mark.parametrize("gate", ["query", "key"])
@pytest.mark.parametrize(("heads", "width", "rows", "keys"), SHAPES[:4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(gate: str, heads: int, width: int, rows: int, keys: int, dtype: torch.dtype) -> None:
    """Values are nearer to float64 than those of the explicit form; gradients too, or within one unit of the type."""
    inputs = draw(heads, width, rows, keys, gate, dtype)
    exact = both(explicit, [x.detach().double().requires_grad_() for x in inputs], gate)
    ours, theirs = (
        list(map(relative, both(attention, inputs, gate), exact)) for attention in (gated_attention, explicit)
    )
    assert ours[0] < theirs[0]
    unit = torch.finfo(dtype).eps
    assert all(own <= max(their, unit) for own, their in zip(ours[1:], theirs[1:], strict=True))


def peak(batch: int, n: int, gate: str, learned: bool) -> float:
    """MiB that forward and backward hold at most, for 8 heads of one channel: MMDG's case."""
    q, k, v = (torch.randn(batch, 8, n, 1, requires_grad=True) for _ in range(3))
    confidence = torch.rand(batch, n, requires_grad=learned)
    return peak_bytes(lambda: gated_attention(q, k, v, confidence, gate).sum().backward()) / 2**20


@pytest.mark.parametrize("gate", ["query", "key"])
def test_a_thousand_tokens_need_twelve_mebibytes(gate: str) -> None:
    """At batch 16, where a single n × n map of all heads has 512 MiB."""
    assert peak(16, 1024, gate, learned=False) <= 12


@pytest.mark.parametrize("gate", ["query", "key"])
@pytest.mark.parametrize("learned", [False, True])
def test_memory_is_linear_in_the_tokens(gate: str, learned: bool) -> None:
    assert peak(1, 4096, gate, learned) < 4.5 * peak(1, 1024, gate, learned)
