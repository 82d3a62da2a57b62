"""What things are made of: skin, ink and pixels, a wall, in the colours of the eye and in the infrared."""

from typing import NamedTuple

import numpy as np

from fas.samples import KINDS

from .arrays import Array, blend, either, step
from .draws import Draws
from .faces import SIZE, UNIT_MM, Face
from .profiles import Profile

MELANIN, HAEMOGLOBIN = (0.35, 0.72, 1.05), (0.12, 0.50, 0.42)  # absorption of red, green, blue
CUTS = ("cut eyes", "cut eyes nose", "cut eyes nose mouth")
_X = np.arange(SIZE, dtype=np.float32)[None, None, :]
_Y = np.arange(SIZE, dtype=np.float32)[None, :, None]


def is_kind(kind: Array, *names: str) -> Array:
    """Which samples are of one of these kinds, bool "b 1 1"."""
    return np.isin(kind, [KINDS.index(name) for name in names])[:, None, None]


def tint(d: Draws, low: float, high: float) -> Array:
    """A muted colour, "b 3 1 1"."""
    channels = [d.uniform(-0.12, 0.12)[:, 0] for _ in range(3)]
    return np.clip(np.stack(channels, 1)[..., None] + d.uniform(low, high)[:, None], 0.03, 1)


def wall(d: Draws) -> Array:
    """A background: a tint, a gradient, an edge or two, and half the time stripes, "b 3 h w"."""
    field, stripes = d.field(), 0.12 * d.uniform() * d.chance(0.5)
    pattern = stripes * waves(d.uniform(0, np.pi / 2), d.uniform(3, 12), False)
    return tint(d, 0.12, 0.7) * (1 + 0.2 * field + 0.2 * step(field - d.uniform(-0.5, 1.0), 0.1) + pattern)[:, None]


def waves(angle: Array, period: Array, crossed: Array | bool) -> Array:
    """Stripes of deviation about .7, or a lattice where `crossed`; `period` in pixels, "b h w"."""
    cos, sin = 2 * np.pi / period * np.cos(angle), 2 * np.pi / period * np.sin(angle)
    return np.sin(cos * _X + sin * _Y) * either(crossed, np.sin(cos * _Y - sin * _X), 1)


def skin_colour(d: Draws, f: Face, site: Profile, mask: Array) -> Array:
    """exp(−(m·melanin + h·haemoglobin)) with features painted on, "b 3 h w"; `mask` is where a mask replaces skin."""
    melanin = site.melanin * np.exp(d.normal(0, 0.3)) * (1 + 0.06 * d.field()) + d.uniform(0.04, 0.08) * d.grain() * (
        1 - 0.7 * mask
    )
    blood = 0.35 + 0.35 * f.cheeks * (1 - 0.7 * mask) + 0.8 * f.lips * (1 - 0.35 * mask) - 0.1 * mask
    dark = np.maximum(np.maximum(0.75 * f.brows, 0.6 * f.nostrils), np.maximum(0.5 * f.mouth, 0.93 * f.iris))
    lightness, white = 1 - dark * (1 - 0.2 * mask), 0.85 * f.sclera * (1 - f.iris)
    tone, hair = d.uniform(0.03, 0.3) * (1 + 0.2 * d.field()), f.hair
    layers = []
    for m, h, warmth in zip(MELANIN, HAEMOGLOBIN, (1.15, 0.9, 0.7), strict=True):
        albedo = blend(np.exp(-(m * melanin + h * blood)), 0.8, white)
        layers.append(blend(albedo * lightness, tone * warmth, hair))
    return np.stack(layers, 1)


def skin_infrared(d: Draws, f: Face) -> tuple[Array, Array]:
    """Reflectance of a genuine face, "b h w", which melanin hardly changes, and of its bare skin, "b 1 1"."""
    skin = d.normal(0.52, 0.04)
    features = 0.55 * np.maximum(f.iris, 0.7 * f.brows) + 0.15 * f.lips + 0.4 * f.nostrils
    face = blend(skin * (1 - d.uniform(0.5, 1.2) * features), 0.6, 0.4 * f.sclera * (1 - f.iris))
    return blend(face, d.uniform(0.22, 0.5), f.hair), skin


def ink_infrared(d: Draws, ink: Array, site: Profile, screen: Array) -> Array:
    """Reflectance of a page of luminance `ink`: dye all but vanishes, toner stays; a screen is dark anyway."""
    strength = either(d.chance(site.toner), d.uniform(0.45, 1), d.uniform(0, 0.25))
    page = d.uniform(0.5, 0.75) * (1 - 0.85 * strength * (1 - ink))
    return either(screen, 0.08 + d.uniform(0, 0.3), page)


def printed(d: Draws, content: Array, site: Profile, screen: Array) -> Array:
    """What ink or pixels make of a picture: contrast, saturation, cast, and a halftone or moiré pattern."""
    low, slope = site.print_contrast
    low, fade = (low * d.uniform(0.3, 1.2))[:, None], d.uniform(0.2, 1.2)[:, None]
    strength = either(screen, 0.035, 1.6 * site.halftone) * d.uniform(0.2, 1.2)
    period = either(screen, d.uniform(3.5, 7), d.uniform(2.4, 4))
    pattern = strength * waves(d.uniform(0, np.pi / 2), period, ~screen)
    content = np.minimum(low + slope * content, 1)
    grey = content.mean(1, keepdims=True)
    paper, pixels = (0.4 * np.asarray(cast, np.float32)[:, None, None] for cast in (site.print_cast, (-0.03, 0, 0.04)))
    stray = np.stack([d.normal(0, 0.015)[:, 0] for _ in range(3)], 1)[..., None]
    cast = either(screen[:, None], pixels, paper) + stray
    saturation = either(screen[:, None], 0.8 + 0.4 * fade, 1 - fade * (1 - site.print_saturation))
    return np.clip(grey + saturation * (content - grey) + fade * cast + pattern[:, None], 0, 1)


class Sheet(NamedTuple):
    """A print or a screen, held where the face would be."""

    cover: Array  # weight, "b h w"
    relief: Array  # mm, "b h w"
    bezel: Array  # weight, "b h w"


def sheet(d: Draws, f: Face, kind: Array) -> Sheet:
    """Its outline, less what is cut out of it, and its tilted and bent surface."""
    cut, screen = is_kind(kind, *CUTS), is_kind(kind, "replay")
    inset = np.minimum(d.uniform(0.76, 1.1) - np.abs(f.u), d.uniform(1.0, 1.25) - np.abs(f.v))
    cover = either(cut | (d.chance(0.7) & ~screen), f.head, step(inset, 0.06))  # most prints are head-shaped
    holes = f.eye_holes + is_kind(kind, *CUTS[1:]) * step(f.nose - 0.3, 0.2)
    holes = holes + is_kind(kind, CUTS[2]) * step(f.lips - 0.35, 0.2)
    cover = cover * (1 - cut * np.minimum(holes, 1))
    bendable = is_kind(kind, "bent print") | (cut & d.chance(0.85))
    bend = either(bendable, d.uniform(8, 34), either(screen, 0, d.uniform(0, 4)))
    turn = d.uniform(-0.5, 0.5)
    across = (f.u * np.cos(turn) + f.v * np.sin(turn)) / 0.8
    tilt = UNIT_MM * (d.normal(0, 0.12) * f.u + d.normal(0, 0.12) * f.v)
    return Sheet(
        cover, 40 + tilt + bend * (0.35 - np.minimum(across**2, 2)), screen * d.uniform(0, 1) * step(0.08 - inset, 0.04)
    )
