"""Three cameras: what a site's colour, infrared and depth sensors make of a scene.

Gain, noise level and range are drawn a sample, whatever it shows: they are not to tell an attack from a face.
"""

from functools import lru_cache

import numpy as np

from .arrays import Array, interpolation, power, smoothing
from .draws import Draws
from .faces import SIZE
from .profiles import Profile
from .scene import Scene

_SOFT = smoothing(0.8, SIZE)
_SOFT_GAIN = 1 / np.sqrt((_SOFT[SIZE // 2] ** 2).sum())  # white noise keeps its deviation per axis


@lru_cache
def _optics(blur: float, resolution: int) -> Array:
    """Blur, and the way down to `resolution` pixels and up again, as one matrix along an axis."""
    down = interpolation(SIZE, resolution)
    return (interpolation(resolution, SIZE) @ down @ smoothing(blur, SIZE)).astype(np.float32)


@lru_cache
def _dct() -> Array:
    """The 8-point cosine transform, block by block, as one "size size" matrix."""
    k, i = np.arange(8)[:, None], np.arange(8)[None]
    block = np.sqrt(2 / 8) * np.cos(np.pi * (2 * i + 1) * k / 16)
    block[0] /= np.sqrt(2)
    return np.kron(np.eye(SIZE // 8), block).astype(np.float32)


def to_uint8(x: Array) -> Array:
    """From [0, 1] to 0 … 255."""
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def metered(x: Array, visible: Array, mean: Array | float, deviation: Array | float) -> Array:
    """An automatic gain and black level: `x` "b c h w" with this `mean` and `deviation` where `visible`, "b 1 h w".

    Cameras expose for what they see, so an image's brightness and contrast are the camera's, not the subject's.
    """
    grey, share = x.mean(1, keepdims=True), visible.mean((1, 2, 3), keepdims=True, dtype=np.float32)
    middle = (grey * visible).mean((1, 2, 3), keepdims=True) / share
    spread = np.sqrt((((grey - middle) * visible) ** 2).mean((1, 2, 3), keepdims=True) / share)
    return mean + (x - middle) * (deviation / (spread + 0.01))


def colour(d: Draws, s: Scene, site: Profile, visible: Array) -> Array:
    """White balance, optics, exposure, saturation, noise, compression; uint8 "b 3 h w"."""
    tint = np.stack([d.normal(0, 0.04)[:, 0] for _ in range(3)], 1)[..., None]
    white = np.asarray(site.white, np.float32)[:, None, None] * np.exp(tint)
    optics, dct = _optics(site.blur, site.resolution), _dct()
    x = power(optics @ (s.radiance * white) @ optics.T, site.gamma / 1.6)
    x = metered(x, visible, d.normal(0.5, 0.04)[:, None], 0.19 * np.exp(d.normal(0, 0.12))[:, None])
    grey = x.mean(1, keepdims=True)
    x = grey + np.exp(d.normal(0, 0.15))[:, None] * (x - grey)
    x = x + site.noise * np.exp(d.normal(0, 0.45))[:, None] * d.grains(3)
    x = dct.T @ (np.round(dct @ x @ dct.T / site.dct_step) * site.dct_step) @ dct
    return to_uint8(x)


def infrared(d: Draws, s: Scene, site: Profile, visible: Array) -> tuple[Array, Array]:
    """The image, uint8 "b h w", and the return that reaches the depth sensor.

    return = reflectance · (.35 + .65 n·v) · (mean distance / distance)² · spot
    """
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    spot = 1 - 0.2 * ((axis[None, None, :] - d.uniform(-0.3, 0.3)) ** 2 + (axis[None, :, None]) ** 2)
    back = s.reflectance * (0.35 + 0.65 * s.facing) * (site.distance[0] / s.distance) ** 2 * spot
    ambient = site.ir_ambient * s.reflectance * (0.6 + 0.4 * s.shade)
    x = back + s.gloss * power(s.facing, 24) * spot + s.glare + ambient
    mean, deviation = 0.42 * np.exp(d.normal(0, 0.12)), 0.18 * np.exp(d.normal(0, 0.15))
    x = power(x, np.exp(d.normal(0, 0.18)))  # no two sensors respond alike
    x = metered(x[:, None], visible, mean[:, None], deviation[:, None])[:, 0]
    noise = site.ir_noise * np.exp(d.normal(0, 0.45)) * d.grain()
    return to_uint8(_SOFT @ (site.ir_gain * x) @ _SOFT.T + noise), back


def depth(d: Draws, s: Scene, site: Profile, back: Array) -> Array:
    """Noise that grows with distance and with a weak return, steps, flying pixels, holes; closer is brighter."""
    a, b = site.depth_noise
    relative = power(np.clip(back / back[:, 16:48, 16:48].mean((1, 2), keepdims=True), 0.2, 3), -0.3)
    grain = d.grain()
    noise = _SOFT @ grain @ _SOFT.T * _SOFT_GAIN**2
    z = s.distance + (a + b * s.distance**2) * np.exp(d.normal(0, 0.35)) * relative * noise
    soft = _SOFT @ s.distance @ _SOFT.T
    z = np.where((np.abs(soft - s.distance) > 12) & (grain > 0), soft, z)
    z = np.round(z / site.quantum) * site.quantum
    hole = back * (1 + 0.5 * d.field()) < site.hole_below * np.exp(d.normal(0, 0.3))
    if site.depth_coding == "window":  # a range around the subject, of much the same width for all
        near = np.quantile(np.where(s.subject, z, np.inf), 0.05, axis=(1, 2), keepdims=True) - d.uniform(5, 25)
        x = 1 - (z - near) / d.uniform(115, 210)
    elif site.depth_coding == "mad":
        centre = z[:, 16:48, 16:48]
        middle = np.median(centre, axis=(1, 2), keepdims=True)
        spread = 1.48 * np.median(np.abs(centre - middle), axis=(1, 2), keepdims=True)
        x = 0.5 + d.normal(0, 0.04) - np.exp(d.normal(0, 0.18)) * (z - middle) / (8 * np.clip(spread, 16, 40))
    else:
        near, far = site.depth_coding
        x = (far - z) / (far - near)
        x = x + d.normal(0, 0.02)
    return np.where(hole, 0, np.maximum(to_uint8(x), 1)).astype(np.uint8)
