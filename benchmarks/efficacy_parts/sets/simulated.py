"""SIMULATED data with the imbalance that papers report of sound and picture.

Of eight classes, ``sound`` shows each as a place in ten dimensions, so noisy that it ends low, and a linear layer finds
them at once. ``picture`` shows the three bits of the class, each four times over, as the product of the signs of two
numbers, and more cleanly; that takes a network some time. Noise and number were chosen so that joint training leaves
the picture behind, at any learning rate: what a method does here it does where it must.
"""

import torch

from .multimodal import Multimodal, stratified

SAMPLES, CLASSES, SOUND = 2000, 8, 10
BITS, COPIES, FACTORS = 3, 4, 2  # a bit is shown by so many products of so many signs
SOUND_NOISE, PICTURE_NOISE = 0.6, 0.5


def imbalance() -> Multimodal:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % CLASSES
    centres = 2 * torch.nn.functional.normalize(torch.randn(CLASSES, SOUND, generator=generator), dim=1)
    sound = centres[labels] + SOUND_NOISE * torch.randn(SAMPLES, SOUND, generator=generator)
    bits = 1 - 2 * (labels[:, None] >> torch.arange(BITS) & 1)  # "n bits" of ±1
    signs = torch.randint(0, 2, (SAMPLES, BITS, COPIES, FACTORS), generator=generator) * 2 - 1
    signs[..., -1] = bits[:, :, None] * signs[..., :-1].prod(-1)  # their product is the bit
    picture = signs.flatten(1) + PICTURE_NOISE * torch.randn(SAMPLES, BITS * COPIES * FACTORS, generator=generator)
    views = {"sound": sound, "picture": picture}
    return Multimodal("imbalance", views, labels, stratified(labels), epochs=30, note="SIMULATED, 2000 samples")
