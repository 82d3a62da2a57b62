"""What stands in front of the camera: a genuine face, or a sheet, a screen or a mask that shows one.

An attack shares pose, outline, wall and light with the genuine face, so that neither silhouette nor occlusion gives it
away; what differs is what its kind implies: content lit elsewhere, relief, gloss, reflectance in the infrared.
"""

from typing import NamedTuple

import numpy as np

from .arrays import Array, blend, either, interpolation, power, smoothing
from .draws import Draws
from .faces import SIZE, Face, normals
from .materials import CUTS, ink_infrared, is_kind, printed, sheet, skin_colour, skin_infrared, tint, wall
from .profiles import Profile

_UP = interpolation(11, SIZE)
_FACETS = _UP @ (_UP / _UP.sum(0)).T  # piecewise linear between eleven nodes
_COPY = smoothing(0.8, SIZE)
_RIM = 0.35  # a surface seen more askew than this is an edge between two surfaces


class Scene(NamedTuple):
    """What the three cameras see; maps are "b h w"."""

    distance: Array  # mm
    radiance: Array  # linear light, "b 3 h w"
    reflectance: Array  # in the infrared
    gloss: Array  # in the infrared
    glare: Array  # the emitter's light, thrown straight back
    facing: Array  # cosine to the camera
    shade: Array  # cosine to the light
    subject: Array  # bool: the face or what stands for it, and the body


class Light(NamedTuple):
    """A lamp and the light all around; each "b 1 1"."""

    x: Array
    y: Array
    z: Array
    ambient: Array

    @classmethod
    def draw(cls, d: Draws, spread: float) -> "Light":
        """A lamp somewhere in front and above."""
        x, y = d.uniform(-spread, spread), d.uniform(-spread, 0.2)
        z = 1 / np.sqrt(1 + x**2 + y**2)
        return cls(x * z, y * z, z, d.uniform(0.35, 0.6))

    def on(self, n: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """max(0, n · l), and the light that arrives: ambient + (1.05 − ambient) · max(0, n · l)."""
        shade = np.maximum(n[0] * self.x + n[1] * self.y + n[2] * self.z, 0)
        return shade, self.ambient + (1.05 - self.ambient) * shade

    def highlight(self, n: tuple[Array, Array, Array]) -> Array:
        """(n · h)²⁰ with h half-way between lamp and camera."""
        length = np.sqrt(2 + 2 * self.z)
        return power((n[0] * self.x + n[1] * self.y + n[2] * (1 + self.z)) / length, 20)


def scene(d: Draws, f: Face, kind: Array, site: Profile, scale: Array) -> Scene:
    """The scene of each sample; `kind` holds codes, "b"."""
    here, elsewhere = Light.draw(d, 0.9), Light.draw(d, 0.6)
    flat, screen = is_kind(kind, "print", "bent print", *CUTS, "replay"), is_kind(kind, "replay")
    rigid, silicone = is_kind(kind, "rigid mask", "half mask"), is_kind(kind, "silicone mask")
    paper, half, glasses = is_kind(kind, "paper mask"), is_kind(kind, "half mask"), is_kind(kind, "glasses")

    # what covers the face
    where = either(half, f.lower, 1 - f.eye_holes) * (1 - f.hair)
    where = either(glasses, f.lenses, where * (rigid | silicone | paper))
    mask, held = where * f.head, sheet(d, f, kind)
    cover = held.cover * flat
    head = np.maximum(f.head, cover)
    subject = np.maximum(np.maximum(head, f.neck), f.torso) > 0.5

    # relief
    worn = either(paper, _FACETS @ f.relief @ _FACETS.T, f.relief) - either(rigid, 3.5, 1) * f.lips
    relief = blend(f.relief, worn + either(silicone, 1.5, either(glasses, 6, 3)), mask)
    body = np.maximum(f.neck * 25 * np.sqrt(np.maximum(1 - (f.u / 0.42) ** 2, 0)), f.torso * 12) - 25
    relief = either(f.head > 0.5, relief, body)
    face, page, sheeted = normals(relief, scale), normals(held.relief, scale), cover > 0.5
    n = either(sheeted, page[0], face[0]), either(sheeted, page[1], face[1]), either(sheeted, page[2], face[2])
    relief = either(sheeted, held.relief, relief)
    shade, arriving = (x[:, None] for x in here.on(n))

    # colour
    skin = skin_colour(d, f, site, either(glasses, 0, mask))
    picture = (
        skin * elsewhere.on(face)[1][:, None] + (d.uniform(0, 0.14) * (1 - f.hair) * elsewhere.highlight(face))[:, None]
    )
    picture = _COPY @ picture @ _COPY.T  # fine texture is lost on the way
    picture = printed(d, blend(wall(d), picture, f.head[:, None]), site, screen) * (1 - 0.92 * held.bezel[:, None])
    lens = d.uniform(0.03, 0.2)
    surface = blend(skin, lens[:, None], either(glasses, mask, 0)[:, None])
    surface = surface + 0.1 * either(paper, mask, 0)[:, None] * (0.9 - surface)
    gloss = blend(d.uniform(0, 0.14), d.uniform(0.4, 1) * either(paper, 0.06, either(silicone, 0.25, 0.4)), mask)
    lit = surface * arriving + (gloss * (1 - f.hair) * here.highlight(n))[:, None]
    glare = np.exp(-((f.u - d.uniform(-0.8, 0.8)) ** 2 + (f.v - d.uniform(-0.8, 0.8)) ** 2) / 0.06) * screen
    shown = picture * either(screen[:, None], 0.95, arriving) + (d.uniform(0, 0.35) * glare)[:, None]
    radiance = blend(wall(d), tint(d, 0.1, 0.6) * arriving, f.torso[:, None])
    radiance = blend(radiance, 0.8 * skin[:, :, 40:41, 32:33] * arriving, f.neck[:, None])
    radiance = blend(blend(radiance, lit, f.head[:, None]), shown, cover[:, None])

    # infrared: dye vanishes and toner stays, a screen is dark, a rigid mask is brighter or darker than skin
    live, bare = skin_infrared(d, f)
    page = ink_infrared(d, picture.mean(1), site, screen)
    worn = either(silicone, 0.25 * bare + 0.35 * live, either(d.chance(site.bright_rigid), 0.8, 0.26))
    worn = either(paper, page, either(glasses, either(d.chance(0.5), 0.08, 0.8), worn))
    reflectance = blend(np.exp(d.uniform(-2.5, 0)) * (1 + 0.35 * d.field()), d.uniform(0.15, 0.8), f.torso)
    reflectance = blend(blend(reflectance, 0.9 * bare, f.neck), blend(live, worn, mask), f.head)

    gap = 10 + 30 * (np.exp(4 * d.uniform()) - 1)  # from the face's rim to the wall: 1 cm to 1.6 m
    far = d.normal(*site.distance)
    return Scene(
        distance=far + either(subject, -relief, gap),
        radiance=radiance,
        reflectance=np.maximum(blend(reflectance, page, cover), 0.02),
        gloss=0.05 + 0.05 * np.maximum(mask, cover),
        glare=d.uniform(0, 0.9) * d.chance(0.6) * glare * cover,
        facing=either(subject, np.maximum(n[2], _RIM), 0.95),
        shade=shade[:, 0],
        subject=subject,
    )
