"""The shape of a face: a height field over the image, in millimetres towards the camera, and its regions.

    z = 52 √e + 22 nose + 4 brow − 10 sockets + 5 lips + 8 chin + pose,   e = 1 − (u / width)² − v²

in face units: v runs from −1 (crown) to 1 (chin), and one unit is 110 mm.
"""

from typing import NamedTuple

import numpy as np

from .arrays import Array, bump, step

SIZE = 64
UNIT_MM = 110.0
TRAITS = 16  # normals that make an identity
_AXIS = np.linspace(-1, 1, SIZE, dtype=np.float32)


class Pose(NamedTuple):
    """Where the head is; each "b 1 1". Offsets and scale in half frames, angles in radians."""

    x: Array
    y: Array
    scale: Array
    roll: Array
    yaw: Array
    pitch: Array


class Face(NamedTuple):
    """Maps over the image, each "b h w"; regions are weights from 0 to 1."""

    u: Array
    v: Array
    relief: Array
    head: Array
    hair: Array
    neck: Array
    torso: Array
    brows: Array
    sclera: Array
    iris: Array
    nose: Array
    nostrils: Array
    lips: Array
    mouth: Array
    cheeks: Array
    lenses: Array  # where glasses would sit
    eye_holes: Array  # where a mask leaves the eyes free
    lower: Array  # the lower half of the face


def face(traits: Array, pose: Pose) -> Face:
    """The face of each identity ("b 16" standard normals) in its pose."""
    t = traits.T[:, :, None, None]
    x, y = _AXIS[None, None, :] - pose.x, _AXIS[None, :, None] - pose.y
    cos, sin = np.cos(pose.roll), np.sin(pose.roll)
    u, v = (cos * x + sin * y) / pose.scale, (cos * y - sin * x) / pose.scale
    pixel = 2 / (SIZE * pose.scale)

    jaw = 1 - (0.13 + 0.04 * t[1]) * np.maximum(v, 0) ** 2
    width = 0.72 * (1 + 0.05 * t[0]) * jaw
    e = 1 - (u / width) ** 2 - v**2
    head = step(e, 3 * pixel)

    fu, fv = u - 0.6 * pose.yaw, v - 0.6 * pose.pitch
    nu = u - 0.8 * pose.yaw
    eye_u, eye_v = np.abs(fu) - 0.28 * (1 + 0.06 * t[2]), fv + 0.08 + 0.025 * t[3]
    brow_v = eye_v + 0.19 + 0.02 * t[4] - 0.35 * eye_u**2
    lip_v = fv - 0.53 - 0.025 * t[5]
    nose_long = 1 + 0.08 * t[6]

    sockets = bump(eye_u, eye_v, 0.17, 0.11)
    eyes = bump(eye_u, eye_v, 0.125, 0.055 * (1 + 0.12 * t[7]))
    iris = bump(eye_u, eye_v, 0.055, 0.06)
    brows = bump(eye_u, brow_v, 0.17, 0.042 * (1 + 0.15 * t[8]))
    tip = bump(nu, fv - 0.26 * nose_long, 0.10 * (1 + 0.1 * t[9]), 0.09)
    nose = 0.55 * bump(nu, fv - 0.08, 0.07, 0.2 * nose_long) + 0.75 * tip
    nostrils = bump(np.abs(nu) - 0.065, fv - 0.335 * nose_long, 0.035, 0.03)
    lips = bump(fu, lip_v, 0.19 * (1 + 0.1 * t[10]), 0.062 * (1 + 0.15 * t[11]))
    mouth = bump(fu, lip_v, 0.2, 0.02)
    chin = bump(fu, fv - 0.86, 0.2, 0.12)
    cheeks = bump(np.abs(fu) - 0.36, fv - 0.28, 0.16, 0.16)
    hairline = -v - 0.58 - 0.05 * t[12] + 0.9 * np.maximum(np.abs(u) - 0.45, 0) * (1 + 0.5 * t[13])
    hair = step(hairline, 0.12)

    relief = 52 * np.sqrt(np.maximum(e, 0)) + (22 + 2 * t[14]) * nose + 4 * brows - 10 * sockets + 5 * lips + 8 * chin
    relief += 5 * hair + 15 * (pose.yaw * u + pose.pitch * v)
    neck = step(0.42 - np.abs(u), 2 * pixel) * step(v - 0.6, 2 * pixel)
    torso = step(v - 1.12 - 0.22 * u**2, 2 * pixel)
    return Face(
        u=u, v=v, relief=relief, head=head, hair=hair, neck=neck, torso=torso, brows=brows,
        sclera=step(eyes - 0.5, 0.5), iris=step(iris - 0.5, 0.5) * step(eyes - 0.35, 0.3), nose=nose,
        nostrils=nostrils, lips=lips, mouth=mouth, cheeks=cheeks,
        lenses=step(0.2 - np.maximum(np.abs(eye_u), 1.35 * np.abs(eye_v)), 0.05),
        eye_holes=step(eyes - 0.3, 0.3), lower=step(fv - 0.1, 0.05),
    )  # fmt: skip


def normals(relief: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Unit normals of a height field in millimetres; `scale` as in the pose."""
    per_pixel = UNIT_MM * 2 / (SIZE * scale)  # millimetres
    dx, dy = np.empty_like(relief), np.empty_like(relief)
    dx[..., 1:-1] = relief[..., 2:] - relief[..., :-2]
    dx[..., 0], dx[..., -1] = dx[..., 1], dx[..., -2]
    dy[:, 1:-1] = relief[:, 2:] - relief[:, :-2]
    dy[:, 0], dy[:, -1] = dy[:, 1], dy[:, -2]
    nx, ny = -0.5 * dx / per_pixel, -0.5 * dy / per_pixel
    nz = 1 / np.sqrt(1 + nx**2 + ny**2)
    return nx * nz, ny * nz, nz
