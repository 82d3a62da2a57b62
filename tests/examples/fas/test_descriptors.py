"""What the infrared input is made of, against slow literal versions of the same definitions."""

import math

import numpy as np
import pytest
import torch
from fas.sets.descriptors import DESCRIPTORS, describe, hog, lbp, plgf, plgf_kernels
from skimage.feature import hog as skimage_hog


@pytest.fixture
def noise() -> torch.Tensor:
    image = torch.randint(0, 256, (2, 1, 18, 17), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[1, 0, :9] = image[1, 0, :9] // 64  # levels 0 … 3: below PLGF's floor, and full of ties
    return image


def slow_lbp(image: np.ndarray) -> np.ndarray:
    """Neighbour by neighbour, in words."""
    height, width = image.shape
    out = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            around = [  # top-left, top, top-right, right, bottom-right, bottom, bottom-left, left
                (r - 1, c - 1), (r - 1, c), (r - 1, c + 1), (r, c + 1), (r + 1, c + 1), (r + 1, c), (r + 1, c - 1),
                (r, c - 1),
            ]  # fmt: skip
            for i, (y, x) in enumerate(around, start=1):
                inside = 0 <= y < height and 0 <= x < width
                if inside and image[y, x] >= image[r, c]:
                    out[r, c] += 2 ** (i - 1)
    return out


def slow_plgf(image: np.ndarray) -> np.ndarray:
    """Pixel by pixel in float64, the kernel by its trigonometric form."""
    image = np.maximum(image.astype(np.float64), 2)
    height, width = image.shape
    force = np.zeros((height, width))
    for r in range(height):
        for c in range(width):
            pull_x = pull_y = 0.0
            for y in (2, 1, 0, -1, -2):
                for x in (-2, -1, 0, 1, 2):
                    row, column = r - y, c + x  # y points upwards
                    if (x or y) and 0 <= row < height and 0 <= column < width:
                        pull_x += image[row, column] * math.cos(math.atan2(y, x)) / (x * x + y * y)
                        pull_y += image[row, column] * math.sin(math.atan2(y, x)) / (x * x + y * y)
            own = image[r, c] + 1e-4
            force[r, c] = math.atan(math.sqrt((pull_x / own) ** 2 + (pull_y / own) ** 2))
    return 1 + 254 * (force - force.min()) / (force.max() - force.min())


def test_lbp_is_the_literal_one(noise):
    expected = np.stack([slow_lbp(one) for one in noise[:, 0].numpy().astype(int)])
    assert np.array_equal(lbp(noise)[:, 0].numpy(), expected)
    assert np.array_equal(lbp(noise.double())[:, 0].numpy(), expected)


def test_lbp_counts_nothing_outside_on_any_border():
    flat = lbp(torch.full((1, 1, 3, 3), 7, dtype=torch.uint8))[0, 0]
    right, below = 8 + 16 + 4, 16 + 32 + 64  # bits of the three neighbours on a side
    left, above = 1 + 128 + 64, 1 + 2 + 4
    assert flat[1, 1] == 255
    assert flat[0, 0] == right & below | 8 | 32 and flat[2, 2] == left & above | 128 | 2
    assert flat[0, 1] == 255 - above and flat[2, 1] == 255 - below
    assert flat[1, 0] == 255 - left and flat[1, 2] == 255 - right


def test_lbp_is_blind_to_brightness_and_gain(noise):
    assert torch.equal(lbp(noise), lbp(noise.float() * 0.5 + 20))


def test_plgf_kernels_are_the_published_ones():
    half = [[0.0884, 0.1789, 0.25, 0.1789, 0.0884], [0.0894, 0.3536, 1, 0.3536, 0.0894]]
    m_y = [*half, [0] * 5, *([-v for v in row] for row in reversed(half))]
    m_x = [
        [-0.0884, -0.0894, 0, 0.0894, 0.0884],
        [-0.1789, -0.3536, 0, 0.3536, 0.1789],
        [-0.25, -1, 0, 1, 0.25],
        [-0.1789, -0.3536, 0, 0.3536, 0.1789],
        [-0.0884, -0.0894, 0, 0.0894, 0.0884],
    ]
    assert torch.allclose(plgf_kernels()[:, 0], torch.tensor([m_x, m_y], dtype=torch.float64), rtol=0, atol=5e-5)


def test_plgf_is_the_literal_one(noise):
    expected = torch.from_numpy(np.stack([slow_plgf(one) for one in noise[:, 0].numpy()]))
    assert torch.allclose(plgf(noise.double())[:, 0], expected, rtol=0, atol=1e-9)
    assert torch.allclose(plgf(noise)[:, 0].double(), expected, rtol=0, atol=1e-2)


def test_plgf_is_scaled_image_by_image(noise):
    out = plgf(noise)
    assert torch.equal(out.amin((1, 2, 3)), torch.ones(2)) and torch.equal(out.amax((1, 2, 3)), torch.full((2,), 255.0))
    assert torch.equal(out[1:], plgf(noise[1:]))


@pytest.mark.parametrize("level", [0, 2, 255])
def test_plgf_of_a_constant_image_is_finite(level):
    flat = plgf(torch.full((1, 1, 12, 12), level, dtype=torch.uint8))[0, 0]
    assert torch.isfinite(flat).all() and flat.max() == 255  # the zeros around it pull the rim
    assert (flat[2:-2, 2:-2] < 1.001).all()
    for size in (1, 2):  # every pixel is pulled alike: nothing to scale
        assert torch.equal(plgf(torch.full((1, 1, size, size), float(level))), torch.ones(1, 1, size, size))


def test_hog_is_the_drawing_of_scikit_image():
    image = torch.randint(0, 256, (2, 1, 32, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image[1] = 9
    _, drawn = skimage_hog(
        image[0, 0].numpy(), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), visualize=True
    )
    out = hog(image)
    assert out.dtype == torch.float32 and np.allclose(out[0, 0].numpy(), drawn / drawn.max() * 255, rtol=1e-6)
    assert (out[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_describe_stacks_in_the_order_asked_for(noise, dtype):
    image = noise.to(dtype)
    out = describe(image, ["grey", "hog", "plgf"])
    assert out.shape == (2, 3, 18, 17) and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 255
    assert torch.equal(out[:, :1], image.float()) and torch.equal(out[:, 2:], plgf(image))
    assert torch.equal(describe(image, ("lbp",)), lbp(image))
    assert set(DESCRIPTORS) == {"grey", "lbp", "hog", "plgf"}


def test_wrong_names_and_shapes_are_refused(noise):
    for names in (["gray"], [], "lbp"):
        with pytest.raises(ValueError, match="names: expected a list of some of grey, lbp, hog, plgf, found"):
            describe(noise, names)
    with pytest.raises(ValueError, match=r'image: expected shape "b 1 h w", found \(2, 18, 17\)'):
        lbp(noise[:, 0])
