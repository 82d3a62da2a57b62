"""ConvAdapter, CDC-adapter and AMA, re-derived literally in float64, one number at a time.

Convpass (arXiv 2207.07039), AMA (arXiv 2302.05744), central differences (arXiv 2003.04092). Every sum is a loop; a
missing modality is left out of the sums.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

Array = np.ndarray


def arrays(state: Mapping[str, Tensor]) -> dict[str, Array]:
    return {key: value.detach().numpy().astype(np.float64) for key, value in state.items()}


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def quick_gelu(x: Array) -> Array:
    return np.array([float(v) * sigmoid(1.702 * float(v)) for v in x])


def affine(weight: Array, bias: Array, x: Array) -> Array:
    rows = []
    for row, offset in zip(weight, bias, strict=True):
        total = float(offset)
        for coefficient, value in zip(row, x, strict=True):
            total += float(coefficient) * float(value)
        rows.append(total)
    return np.array(rows)


def convolved(image: dict[tuple[int, int], Array], weight: Array, theta: float, y: int, x: int) -> Array:
    """conv(image; W) − θ·conv1×1(image; Σ_k W_k) at the pixel (y, x); what is outside of the image is zero."""
    out = []
    for kernel in weight:  # one output channel
        total = 0.0
        for channel, taps in enumerate(kernel):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if (y + dy, x + dx) in image:
                        total += float(taps[dy + 1, dx + 1]) * float(image[y + dy, x + dx][channel])
            total -= theta * float(taps.sum()) * float(image[y, x][channel])
        out.append(total)
    return np.array(out)


def conv_adapter(
    state: Mapping[str, Tensor], tokens: Tensor, grid: tuple[int, int], prefix: int, theta: float = 0.0
) -> Array:
    """Convpass's body without dropout: down, QuickGELU, convolution, QuickGELU, up."""
    s = arrays(state)
    deltas = []
    for sample in tokens.numpy():
        h = [quick_gelu(affine(s["down.weight"], s["down.bias"], token)) for token in sample]
        image = {(p // grid[1], p % grid[1]): h[prefix + p] for p in range(grid[0] * grid[1])}
        z = [convolved({(0, 0): h[token]}, s["conv.weight"], theta, 0, 0) for token in range(prefix)]
        z += [convolved(image, s["conv.weight"], theta, y, x) for y in range(grid[0]) for x in range(grid[1])]
        deltas.append([affine(s["up.weight"], s["up.bias"], quick_gelu(row)) for row in z])
    return np.array(deltas)


def ama(
    state: Mapping[str, Tensor],
    tokens: Tensor,
    count: int,
    grid: tuple[int, int],
    prefix: int,
    present: Sequence[Sequence[bool]] | None = None,
) -> tuple[Array, Array]:
    """AMA without dropout; returns the deltas and the weights. `present` is by sample, then by modality."""
    s = arrays(state)
    width, patches = len(s["down.weight"]), grid[0] * grid[1]
    deltas, weights = [], []
    for number, sample in enumerate(tokens.numpy()):
        has = [True] * count if present is None else present[number]

        def feature(token: Array) -> Array:
            return quick_gelu(affine(s["down.weight"], s["down.bias"], token))

        image = {}
        for p in range(patches):
            stacked: list[float] = []
            for m in range(count):
                stacked += list(feature(sample[prefix + m * patches + p])) if has[m] else [0.0] * width
            image[p // grid[1], p % grid[1]] = np.array(stacked)
        pooled = [sum(float(pixel[c]) for pixel in image.values()) / patches for c in range(count * width)]
        w = []
        for m, row in enumerate(s["gate.linear.weight"]):
            logit = sum(float(a) * b for a, b in zip(row, pooled, strict=True))
            w.append(sigmoid(logit) if has[m] else 0.0)
        f = [convolved(image, s["conv.weight"], 0.0, y, x) for y in range(grid[0]) for x in range(grid[1])]

        delta = []
        for token in range(prefix):
            pixel = np.concatenate([feature(sample[token])] * count)
            z = convolved({(0, 0): pixel}, s["conv.weight"], 0.0, 0, 0)
            delta.append(affine(s["up.weight"], s["up.bias"], quick_gelu(z)))
        for m in range(count):
            for p in range(patches):
                up = affine(s["up.weight"], s["up.bias"], quick_gelu(w[m] * f[p]))
                delta.append(up if has[m] else np.zeros_like(up))
        deltas.append(delta)
        weights.append(w)
    return np.array(deltas), np.array(weights)
