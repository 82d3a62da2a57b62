"""Small operations on single-precision maps "b h w" that the parts of the stand-in share."""

import numpy as np

Array = np.ndarray


def bump(u: Array, v: Array, wide: float | Array, high: float | Array) -> Array:
    """A Gaussian bump."""
    return np.exp(-0.5 * ((u / wide) ** 2 + (v / high) ** 2))


def step(x: Array, softness: float | Array) -> Array:
    """From 0 to 1 across x = 0, over a width of `softness`."""
    return np.clip(x / softness + 0.5, 0, 1)


def blend(below: Array | float, above: Array | float, weight: Array) -> Array:
    """`above` painted over `below` with `weight`."""
    return below + weight * (above - below)


def either(condition: Array, yes: Array | float, no: Array | float) -> Array:
    """`yes` where `condition`, else `no`, in single precision."""
    return np.where(condition, np.asarray(yes, np.float32), np.asarray(no, np.float32))


def interpolation(coarse: int, fine: int) -> Array:
    """The "fine coarse" matrix that interpolates linearly between `coarse` nodes."""
    at = np.linspace(0, coarse - 1, fine)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(coarse))).astype(np.float32)


def smoothing(sigma: float, size: int) -> Array:
    """The "size size" matrix of a Gaussian blur along one axis, `sigma` in pixels; each row sums to 1."""
    offset = np.arange(size)[:, None] - np.arange(size)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)


def power(x: Array, exponent: float | Array) -> Array:
    """Raise x > 0 to `exponent` (others give about 0); numpy vectorises exp and log in single precision, not ``**``."""
    return np.exp(exponent * np.log(np.maximum(x, 1e-6)))
