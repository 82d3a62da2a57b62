"""MMPareto, literally (Wei & Hu, ICML 2024): the gradients of one encoder, tensor by tensor, as numpy vectors."""

import numpy as np

Vector = np.ndarray


def coefficients(a: Vector, b: Vector) -> tuple[float, float]:
    """k of one encoder, from its whole gradients: of the multimodal loss and of the unimodal one."""
    if not a.any() or not b.any():
        return 0.5, 0.5  # nothing to conflict with
    if a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0:
        return 0.5, 0.5
    k = (np.linalg.norm(b) ** 2 - a @ b) / np.linalg.norm(a - b) ** 2
    k = min(max(k, 0.0), 1.0)
    return k, 1 - k


def encoder(total: list[Vector], unimodal: list[Vector], gamma: float) -> list[Vector]:
    """The new gradient of each tensor of one encoder."""
    k0, k1 = coefficients(np.concatenate(total), np.concatenate(unimodal))
    out = []
    for a, b in zip(total, unimodal, strict=True):
        g = 2 * k0 * a + 2 * k1 * b
        length = np.linalg.norm(g)
        if length > 0:
            g = g * max(1.0, np.linalg.norm(a + b) / length)
        out.append(gamma * g)
    return out
