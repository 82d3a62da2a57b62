"""The adapters, re-derived literally in float64 from MMDG (arXiv 2402.19298): Eq. 1-4, central differences, the body.

Explicit softmaxes row by row, central differences as two convolutions, prefix tokens as 1×1 images.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def eq4(q: Tensor, k: Tensor, v: Tensor, confidence: Tensor | None, gate: str) -> Tensor:
    """softmax(Q Kᵀ ⊙ U / √n_k) V, one row at a time; with the key gate the weights are u_j·exp(logit_j), normalised."""
    b, h, rows, d = q.shape
    out = torch.zeros_like(q)
    for i in range(b):
        for head in range(h):
            for row in range(rows):
                logits = [float(torch.dot(q[i, head, row], key)) / math.sqrt(d) for key in k[i, head]]
                if confidence is not None and gate == "query":
                    logits = [float(confidence[i, row]) * logit for logit in logits]
                top = max(logits)
                weights = [math.exp(logit - top) for logit in logits]
                if confidence is not None and gate == "key":
                    weights = [w * float(confidence[i, j]) for j, w in enumerate(weights)]
                total = sum(weights)
                for j, w in enumerate(weights):
                    out[i, head, row] += (w / total if total > 0 else 0.0) * v[i, head, j]
    return out


def central_difference_convolution(image: Tensor, weight: Tensor, theta: float) -> Tensor:
    """conv(x; W) − θ·conv1×1(x; Σ_k W_k), as two convolutions."""
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    summed = weight.sum((2, 3), keepdim=True)
    return F.conv2d(image, weight, padding=padding) - theta * F.conv2d(image, summed)


def on_tokens(tokens: Tensor, weight: Tensor, theta: float, grid: tuple[int, int], prefix: int) -> Tensor:
    """The convolution on the image of the patches, and on each prefix token as an image of one pixel."""
    b, n, d = tokens.shape
    rows = []
    for token in range(prefix):
        pixel = tokens[:, token].reshape(b, d, 1, 1)
        rows.append(central_difference_convolution(pixel, weight, theta).reshape(b, 1, -1))
    image = torch.zeros(b, d, *grid, dtype=tokens.dtype)
    for place in range(n - prefix):
        image[:, :, place // grid[1], place % grid[1]] = tokens[:, prefix + place]
    convolved = central_difference_convolution(image, weight, theta)
    rows += [convolved[:, None, :, place // grid[1], place % grid[1]] for place in range(n - prefix)]
    return torch.cat(rows, 1)


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def adapter(
    state: Mapping[str, Tensor],
    own: Tensor,
    other: Tensor,
    confidence: Tensor | None,
    own_confidence: Tensor | None = None,
    *,
    heads: int,
    gate: str,
    queries: str = "other",
    scale: float = 1.0,
    theta: float = 0.0,
    grid: tuple[int, int] | None = None,
    prefix: int = 1,
) -> Tensor:
    """The whole body, without dropout: down, QuickGELU, Eq. 4, LayerNorm, convolution, QuickGELU, up."""

    def linear(name: str, x: Tensor) -> Tensor:
        out = x @ state[f"{name}.weight"].T
        return out + state[f"{name}.bias"] if f"{name}.bias" in state else out

    x, y = quick_gelu(linear("down_own", own)), quick_gelu(linear("down_other", other))
    width = x.shape[-1]

    def split(z: Tensor) -> Tensor:
        return torch.stack(z.split(width // heads, dim=-1), dim=1)

    def layer_norm(name: str, z: Tensor) -> Tensor:
        mean, variance = z.mean(-1, keepdim=True), z.var(-1, unbiased=False, keepdim=True)
        return (z - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    if queries == "other":
        asking, answering, of_asking, of_answering = y, x, confidence, own_confidence
    else:
        asking, answering, of_asking, of_answering = x, y, own_confidence, confidence
    q, k, v = linear("query", asking), linear("key", answering), linear("value", answering)
    if "query_norm.weight" in state:
        q, k = layer_norm("query_norm", q), layer_norm("key_norm", k)
    inner, trust = ("query", of_asking) if gate == "query" else ("key", of_answering if "key" in gate else None)
    attended = eq4(split(q), split(k), split(v), trust, inner)
    z = layer_norm("norm", x + linear("out", torch.cat(attended.unbind(1), dim=-1)))
    if grid is not None:
        z = on_tokens(z, state["conv.weight"], theta, grid, prefix)
    delta = linear("up", quick_gelu(z))
    if confidence is not None and "output" in gate:
        for i, told in enumerate(confidence):
            for row in range(delta.shape[1]):
                delta[i, row] = delta[i, row] * (told[row] if queries == "other" else sum(told) / len(told))
    return scale * delta
