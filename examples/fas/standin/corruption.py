"""Regions in which one sensor fails, whatever the sample shows, and the mask that says where.

A region is a rectangle of one to four by one to four tokens of the 8×8 grid. A token is marked for a modality where the
region really changed its image: a failure over an empty background corrupts nothing. Of several, the last counts.
"""

import numpy as np

from fas.samples import FAILURES, TOKENS

from .arrays import Array
from .draws import Draws
from .faces import SIZE
from .profiles import Profile

_PATCH = SIZE // TOKENS


def inside(site: Profile) -> Array:
    """What the black border leaves, bool "h w"."""
    frame = np.zeros((SIZE, SIZE), bool)
    frame[site.border : SIZE - site.border, site.border : SIZE - site.border] = True
    return frame


def _region(d: Draws, probability: float) -> Array:
    """A random rectangle of whole tokens, bool "b h w"; empty with 1 − `probability`."""
    token = np.arange(SIZE, dtype=np.float32) // _PATCH
    high, wide = np.floor(d.uniform(1, 5)), np.floor(d.uniform(1, 5))
    top, left = np.floor(d.uniform(0, 1) * (TOKENS + 1 - high)), np.floor(d.uniform(0, 1) * (TOKENS + 1 - wide))
    rows, columns = token[None, :, None] - top, token[None, None, :] - left
    return d.chance(probability) & (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)


def _moved(d: Draws, images: Array, region: Array, low: int, high: int) -> Array:
    """`images` "b c h w" with `region` taken `low` to `high` pixels off, in a random direction."""
    size, angle = d.uniform(low, high), d.uniform(0, 2 * np.pi)
    down, right = np.round(size * np.sin(angle)).astype(int), np.round(size * np.cos(angle)).astype(int)
    images = images.copy()
    for i in np.flatnonzero(region.any((1, 2))):
        moved = np.roll(images[i], (down[i, 0, 0], right[i, 0, 0]), (-2, -1))
        images[i] = np.where(region[i], moved, images[i])
    return images


def _marked(before: Array, after: Array) -> Array:
    """The tokens whose mean change exceeds two grey levels, bool "b 8 8"."""
    change = np.abs(after.astype(np.float32) - before).mean(1)
    tokens = change.reshape(len(change), TOKENS, _PATCH, TOKENS, _PATCH).mean((2, 4))
    return tokens > 2


def corrupt(d: Draws, rgb: Array, depth: Array, infrared: Array, site: Profile) -> tuple[Array, Array, Array, Array]:
    """The three images after failures, each uint8 "b c h w", and the failure of each token, uint8 "b m 8 8".

    Frame mismatch (the region of a frame in which the head was elsewhere): colour .2, depth .12, infrared .075.
    Misalignment and holes in depth: .12 each. Sun: blinds the infrared and with it depth, as often as the site says.
    """
    mismatch, misalignment, hole, sun = range(1, len(FAILURES))
    frame = inside(site)
    rgb_moved = _moved(d, rgb, frame & _region(d, 0.2), 8, 16)
    ir_moved = _moved(d, infrared, frame & _region(d, 0.075), 8, 16)
    depth_moved = _moved(d, depth, frame & _region(d, 0.12), 8, 16)
    depth_shifted = _moved(d, depth_moved, frame & _region(d, 0.12), 3, 6)
    sunny, holed = ((frame & _region(d, p))[:, None] for p in (site.sun, 0.12))
    flood = np.clip(200 + 25 * d.field() + 8 * d.grain(), 0, 255)[:, None].astype(np.uint8)
    ir_flooded = np.where(sunny, np.maximum(ir_moved, flood), ir_moved)
    depth_holed = np.where(holed, np.uint8(0), depth_shifted)
    depth_blind = np.where(sunny, np.uint8(0), depth_holed)
    steps = (
        ((mismatch, rgb, rgb_moved),),
        (
            (mismatch, depth, depth_moved),
            (misalignment, depth_moved, depth_shifted),
            (hole, depth_shifted, depth_holed),
            (sun, depth_holed, depth_blind),
        ),
        ((mismatch, infrared, ir_moved), (sun, ir_moved, ir_flooded)),
    )
    failure = np.zeros((len(rgb), len(steps), TOKENS, TOKENS), np.uint8)
    for m, stages in enumerate(steps):
        for code, before, after in stages:
            failure[:, m][_marked(before, after)] = code
    return rgb_moved, depth_blind, ir_flooded, failure
