"""The four domains of the stand-in: what each site's camera, light, printer and attackers are like."""

from typing import Literal, NamedTuple


class Profile(NamedTuple):
    """One site. Lengths are millimetres, pixels are of a 64×64 image, intensities of a white surface are 1."""

    melanin: float
    face_scale: float  # half the height of the head, in half frames
    distance: tuple[float, float]  # mean and spread
    masked: bool  # the background is cut away
    border: int  # black pixels around the image
    depth_coding: tuple[float, float] | Literal["window", "mad"]  # nearest and farthest depth, or around the subject
    depth_noise: tuple[float, float]  # a and b of the deviation a + b z²
    quantum: float
    hole_below: float  # the infrared return that a depth pixel needs
    ir_gain: float
    ir_ambient: float
    ir_noise: float
    toner: float  # share of prints whose ink stays visible in the infrared
    bright_rigid: float  # share of rigid masks that are brighter than skin there
    sun: float  # share of images in which the sun floods a region
    resolution: int
    blur: float
    noise: float
    gamma: float
    dct_step: float
    white: tuple[float, float, float]
    print_cast: tuple[float, float, float]
    print_saturation: float
    print_contrast: tuple[float, float]  # black level and slope
    halftone: float
    attacks_per_live: float
    attacks: dict[str, float]  # weights in training and development
    unseen: dict[str, float]  # weights that the test set adds


PROFILES = {
    "S": Profile(
        0.45, 0.95, (430, 40), True, 0, "window", (9, 2.9e-5), 3, 0.2, 0.35, 0.03, 0.016, 0.17, 0.5, 0.1,
        64, 0.5, 0.015, 1.0, 0.015, (1, 0.98, 1), (0, 0, 0), 0.92, (0.04, 0.92), 0.015, 6,
        {"cut eyes": 1, "cut eyes nose": 1, "cut eyes nose mouth": 1}, {},
    ),
    "C": Profile(
        0.75, 0.72, (480, 35), False, 5, (390, 610), (3, 1.2e-5), 3, 0.10, 0.25, 0.35, 0.015, 0.35, 0, 0.15,
        56, 0.6, 0.015, 0.85, 0.02, (1.06, 1, 0.93), (0.05, 0, -0.05), 0.75, (0.07, 0.86), 0.03, 3.5,
        {"print": 2, "replay": 1}, {"rigid mask": 1.6, "silicone mask": 0.2},
    ),
    "W": Profile(
        0.5, 0.8, (400, 30), False, 0, "mad", (1, 5e-6), 1, 0.10, 0.33, 0.12, 0.01, 0.8, 0.5, 0.2,
        64, 0.3, 0.01, 1.05, 0.01, (0.97, 1, 1.05), (-0.04, 0, 0.05), 0.85, (0.07, 0.86), 0.02, 3.8,
        {"print": 1.4, "bent print": 0.5, "replay": 1.6, "rigid mask": 1.3, "silicone mask": 1.45, "glasses": 0.3},
        {"paper mask": 0.6},
    ),
    "P": Profile(
        0.6, 0.85, (520, 40), False, 0, (415, 655), (1.2, 4e-6), 2.5, 0.12, 0.45, 0.08, 0.007, 0.5, 0.6, 0.15,
        64, 0.4, 0.008, 1.15, 0.015, (1, 0.95, 0.95), (0.03, -0.03, 0.02), 0.8, (0.07, 0.86), 0.02, 0.83,
        {"print": 1.5, "bent print": 1, "replay": 1.5, "rigid mask": 0.8, "paper mask": 1, "silicone mask": 0.4,
         "glasses": 0.1, "half mask": 0.1}, {},
    ),
}  # fmt: skip
