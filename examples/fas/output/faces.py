"""Faces themselves: every kind of attack, what a network doubts, and its worst errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from fas.samples import KINDS, MODALITIES, TOKENS, Samples

from .style import panels, save


def draw_contact_sheet(samples: Samples, path: Path | str, *, each: int = 4) -> Path:
    """A row a kind, and in it `each` samples in each modality, those with the fewest corrupted tokens."""
    kinds = sorted(set(samples.kind.tolist()))
    high, wide = samples.rgb.shape[-2:]
    cell_high, cell_wide, gap = high + 2, wide + 2, 8
    band = each * cell_wide + gap  # one modality
    mosaic = np.full((len(kinds) * cell_high, 3 * band - gap, 3), 255, np.uint8)
    cleanest = samples.corrupted.flatten(1).sum(1).argsort(stable=True)
    for row, kind in enumerate(kinds):
        chosen = samples.select(cleanest[samples.kind[cleanest] == kind][:each])
        for block, name in enumerate(MODALITIES):
            for column, image in enumerate(getattr(chosen, name).numpy()):
                top, left = row * cell_high, block * band + column * cell_wide
                mosaic[top : top + high, left : left + wide] = image.transpose(1, 2, 0)
    figure, axes = panels(mosaic.shape[1] / 80 + 2.4, mosaic.shape[0] / 80 + 0.3)
    panel = axes[0, 0]
    panel.imshow(mosaic)
    panel.set_yticks([(row + 0.5) * cell_high for row in range(len(kinds))], [KINDS[kind] for kind in kinds])
    panel.set_xticks([(block + 0.5) * band for block in range(3)], MODALITIES)
    panel.tick_params(length=0, labelsize=max(10, mosaic.shape[1] / 50), labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)
    return save(figure, path)


def draw_uncertainty(
    samples: Samples, uncertainty: Mapping[str, ArrayLike], path: Path | str, *, rows: Sequence[int] = (0, 1, 2, 3)
) -> Path:
    """For each of `rows` and modalities: the image with its corrupted tokens outlined, and the uncertainty beside it.

    `uncertainty` maps a modality to "b n", n = 64 tokens row by row, or to "b 8 8"; a map's greys are its own range.
    """
    maps = {name: np.asarray(u, dtype=float) for name, u in uncertainty.items()}
    for name, u in maps.items():
        if name not in MODALITIES or u.size != len(samples.live) * TOKENS**2:
            raise ValueError(f"uncertainty[{name!r}]: expected a modality and {TOKENS**2} tokens, found {u.shape}")
    figure, axes = panels(2.2 * len(maps) + 0.4, 1.1 * len(rows) + 0.3, len(rows), 2 * len(maps))
    for line, i in zip(axes, rows, strict=True):
        for k, (name, u) in enumerate(maps.items()):
            picture, field = line[2 * k], line[2 * k + 1]
            image = getattr(samples, name)[i].numpy().transpose(1, 2, 0).squeeze()
            picture.imshow(image, cmap="gray", vmin=0, vmax=255)
            field.imshow(u.reshape(-1, TOKENS, TOKENS)[i], cmap="gray")
            mask = samples.corrupted[i, MODALITIES.index(name)].numpy()
            _outline(picture, mask, image.shape[0] / TOKENS)
            _outline(field, mask, 1)
            for panel in (picture, field):
                panel.set_xticks([])
                panel.set_yticks([])
    for k, name in enumerate(maps):
        axes[0, 2 * k].set_title(name, fontsize=9)
        axes[0, 2 * k + 1].set_title("uncertainty", fontsize=9)
    return save(figure, path)


def _outline(panel: Axes, mask: np.ndarray, side: float) -> None:
    """The border of the marked tokens, white on black so that it shows on any grey."""
    padded = np.pad(mask, 1)
    for axis in (0, 1):
        for row, column in zip(*np.nonzero(np.diff(padded.astype(int), axis=axis)), strict=True):
            if axis == 0:
                x, y = (column - 1, column), (row, row)
            else:
                x, y = (column, column), (row - 1, row)
            ends = [side * v - 0.5 for v in x], [side * v - 0.5 for v in y]
            panel.plot(*ends, color="black", lw=3, solid_capstyle="round")
            panel.plot(*ends, color="white", lw=1.2, linestyle=(0, (2, 1)))


def draw_worst(samples: Samples, scores: ArrayLike, threshold: float, path: Path | str, *, count: int = 5) -> Path:
    """The accepted attacks with the highest scores (left) and the rejected live faces with the lowest (right).

    A picture a sample: its modalities side by side, its kind and its score "b" above.
    """
    s, live = np.asarray(scores, dtype=float), samples.live.numpy()
    if s.shape != live.shape:
        raise ValueError(f"scores: expected one a sample, shape {live.shape}, found {s.shape}")
    order = np.argsort(s, kind="stable")
    accepted = [i for i in order[::-1] if not live[i] and s[i] >= threshold]
    rejected = [i for i in order if live[i] and s[i] < threshold]
    rows = max(1, min(count, max(len(accepted), len(rejected))))
    figure, axes = panels(5.6, 1.15 * rows + 0.5, rows, 2)
    for panel in axes.flat:
        panel.set_axis_off()
    for column, title, wrong in ((0, "accepted attacks", accepted), (1, "rejected live faces", rejected)):
        for panel, i in zip(axes[:, column], wrong[:count], strict=False):
            panel.imshow(_side_by_side(samples, i))
            panel.set_title(f"{KINDS[int(samples.kind[i])]}, score {s[i]:.2f}", fontsize=9, pad=3)
        top = axes[0, column]
        top.set_title(f"{title}: {len(wrong)}\n{top.get_title()}", fontsize=9)
    return save(figure, path)


def _side_by_side(samples: Samples, row: int) -> np.ndarray:
    """The modalities of one sample in a line, uint8 "h 3w 3" and a little more for the gaps."""
    images = [getattr(samples, name)[row].expand(3, -1, -1).numpy().transpose(1, 2, 0) for name in MODALITIES]
    gap = np.full((images[0].shape[0], max(2, images[0].shape[1] // 24), 3), 255, np.uint8)
    return np.concatenate([images[0], gap, images[1], gap, images[2]], axis=1)
