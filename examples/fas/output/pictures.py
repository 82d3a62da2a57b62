"""Five figures, from plain arrays to a file: readable without colour vision and in grey print.

matplotlib is imported only here, and only its objects: no global backend, no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fas.evaluation.metrics import roc
from fas.samples import KINDS, MODALITIES, TOKENS, Samples

# Okabe and Ito's colours, dark to light in grey as well, each with a dash of its own
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, path: Path | str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _plain(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def _style(number: int) -> dict:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def draw_convergence(
    curves: Mapping[str, Mapping[str, ArrayLike]], path: Path | str, *, x: str = "step", y: str = "loss of the branch"
) -> Path:
    """One panel a system, one line a branch: {system: {branch: values}}; the scale is shared."""
    if not curves:
        raise ValueError("curves: expected at least one system, found none")
    figure, axes = _figure(3.6 * len(curves), 3.2, columns=len(curves))
    top = max(np.max(np.asarray(v)) for branches in curves.values() for v in branches.values())
    for panel, (system, branches) in zip(axes[0], curves.items(), strict=True):
        for number, (name, values) in enumerate(branches.items()):
            panel.plot(np.arange(1, len(np.asarray(values)) + 1), np.asarray(values), label=name, **_style(number))
        panel.set_title(system)
        panel.set_ylim(0, 1.05 * top)
        _plain(panel, x, y)
    axes[0, 0].legend(frameon=False)
    return _save(figure, path)


def draw_roc(systems: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path | str) -> Path:
    """One line a system, {system: (scores, live)}; FPR on a logarithmic axis from one attack upwards."""
    if not systems:
        raise ValueError("systems: expected at least one system, found none")
    figure, axes = _figure(4.8, 4)
    panel, lowest = axes[0, 0], 1.0
    for number, (name, (scores, live)) in enumerate(systems.items()):
        curve = roc(scores, live)
        step = 1 / curve.attacks_accepted[-1]
        lowest = min(lowest, step)
        panel.step(np.maximum(curve.fpr, step / 2), curve.tpr, where="post", label=name, **_style(number))
    panel.set_xscale("log")
    panel.set_xlim(lowest / 2, 1)
    panel.set_ylim(0, 1.02)
    _plain(panel, "attacks accepted (FPR); the left edge is half an attack", "live accepted (TPR)")
    panel.legend(frameon=False)
    return _save(figure, path)


def draw_scores(scores: ArrayLike, live: ArrayLike, threshold: float, path: Path | str, *, title: str = "") -> Path:
    """Histograms of live and attack scores, each of area 1, and the threshold between them."""
    s, y = np.asarray(scores, dtype=float), np.asarray(live).astype(bool)
    if s.shape != y.shape or s.ndim != 1:
        raise ValueError(f"live: expected one label a score, shape {s.shape}, found {y.shape}")
    figure, axes = _figure(4.8, 3.2)
    panel, edges = axes[0, 0], np.histogram_bin_edges(s, 40)
    panel.hist(s[~y], edges, density=True, color="#E69F00", alpha=0.8, label=f"attack ({int((~y).sum())})")
    panel.hist(s[y], edges, density=True, histtype="step", color="#0072B2", lw=1.8, label=f"live ({int(y.sum())})")
    if np.isfinite(threshold):
        panel.axvline(threshold, color="black", linestyle="--", label="threshold")
    panel.set_title(title)
    _plain(panel, "score (higher is more live)", "density")
    panel.legend(frameon=False)
    return _save(figure, path)


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
    figure, axes = _figure(mosaic.shape[1] / 80 + 1.4, mosaic.shape[0] / 80 + 0.3)
    panel = axes[0, 0]
    panel.imshow(mosaic)
    panel.set_yticks([(row + 0.5) * cell_high for row in range(len(kinds))], [KINDS[kind] for kind in kinds])
    panel.set_xticks([(block + 0.5) * band for block in range(3)], MODALITIES)
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)
    return _save(figure, path)


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
    figure, axes = _figure(2.2 * len(maps) + 0.4, 1.1 * len(rows) + 0.3, len(rows), 2 * len(maps))
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
    return _save(figure, path)


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
