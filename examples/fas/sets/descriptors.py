"""What the infrared input can be made of: the grey image itself, LBP, HOG and PLGF.

Images are "b 1 h w" of grey levels 0 … 255, uint8 or floating; each function returns floating "b 1 h w" in 0 … 255. The
infrared input that multimodal face anti-spoofing found best is (grey, HOG, PLGF): AMA, Yu et al., arXiv 2302.05744.
Apply them after augmentation and before normalisation.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # (down, right), bits 1 … 128
_FLAT = 1e-6  # radians: an image whose PLGF varies less than this shows nothing but rounding


def grey(image: Tensor) -> Tensor:
    """The image as it is."""
    _check(image)
    return image if image.is_floating_point() else image.float()


def lbp(image: Tensor) -> Tensor:
    """Local binary pattern: Σ_i 1[I_i ≥ I_c]·2^(i−1) over the eight neighbours, clockwise from the top left.

    A neighbour outside the image adds nothing, on all four borders. (scikit-image has another order.)
    """
    x = grey(image)
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)  # darker than every centre
    code = torch.zeros_like(x)
    for bit, (down, right) in enumerate(NEIGHBOURS):
        neighbour = padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        code += 2**bit * (neighbour >= x)
    return code


def hog(image: Tensor) -> Tensor:
    """Histograms of oriented gradients, drawn as strokes by scikit-image: 9 orientations, 8×8 pixels a cell.

    The strongest stroke of each image is scaled to 255, so that the gain of a sensor does not matter; an image without
    any gradient stays 0. Runs on the CPU, image by image (some milliseconds each), and needs 16×16 pixels.
    """
    from skimage.feature import hog as drawn  # only this descriptor needs scikit-image

    x = grey(image)
    cells = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2)}
    strokes = [drawn(one, visualize=True, **cells)[1] for one in x[:, 0].detach().cpu().double().numpy()]
    out = torch.from_numpy(np.stack(strokes))[:, None]
    strongest = out.amax((-2, -1), keepdim=True)
    return torch.where(strongest > 0, 255 * (out / strongest), out).to(x)


def plgf_kernels() -> Tensor:
    """M_x = cos(atan2(y, x))/(x² + y²) and M_y, with sin, on the grid −2 … 2; row 0 is y = +2. Float64 "2 1 5 5"."""
    y, x = torch.meshgrid(torch.arange(2.0, -3.0, -1.0), torch.arange(-2.0, 3.0), indexing="ij")
    radius = torch.hypot(x.double(), y.double())
    radius[2, 2] = torch.inf  # the centre weighs nothing
    return torch.stack([x, y])[:, None] / radius**3


def plgf(image: Tensor) -> Tensor:
    """Pattern of local gravitational force: arctan √(((I∗M_x)/(I + 1e-4))² + ((I∗M_y)/(I + 1e-4))²), I ← max(I, 2).

    ∗ is cross-correlation with two rings of zeros around the image, which therefore has a bright rim. Each image is
    scaled to 1 … 255 by its own extremes; one whose force is the same everywhere, and has no such scale, becomes 1.
    """
    x = grey(image).clamp(min=2)
    pull = F.conv2d(x, plgf_kernels().to(x), padding=2) / (x + 1e-4)
    force = torch.arctan(pull.square().sum(1, keepdim=True).sqrt())
    low, high = force.amin((-2, -1), keepdim=True), force.amax((-2, -1), keepdim=True)
    varies = high - low > _FLAT
    return torch.where(varies, 1 + 254 * ((force - low) / torch.where(varies, high - low, 1)), 1)


DESCRIPTORS = {"grey": grey, "lbp": lbp, "hog": hog, "plgf": plgf}


def describe(infrared: Tensor, names: Sequence[str]) -> Tensor:
    """The descriptors `names` of "b 1 h w", one a channel: "b c h w"."""
    unknown = [name for name in names if name not in DESCRIPTORS]
    if unknown or not names or isinstance(names, str):
        raise ValueError(f"names: expected a list of some of {', '.join(DESCRIPTORS)}, found {names!r}")
    return torch.cat([DESCRIPTORS[name](infrared) for name in names], 1)


def _check(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f'image: expected shape "b 1 h w", found {tuple(image.shape)}')
