"""Where the scores of live samples and of attacks lie, and the threshold between them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .style import panels, plain, save


def draw_scores(scores: ArrayLike, live: ArrayLike, threshold: float, path: Path | str, *, title: str = "") -> Path:
    """Histograms of live and attack scores, each of area 1, and the threshold between them."""
    s, y = np.asarray(scores, dtype=float), np.asarray(live).astype(bool)
    if s.shape != y.shape or s.ndim != 1:
        raise ValueError(f"live: expected one label a score, shape {s.shape}, found {y.shape}")
    figure, axes = panels(4.8, 3.2)
    panel, edges = axes[0, 0], np.histogram_bin_edges(s, 40)
    panel.hist(s[~y], edges, density=True, color="#E69F00", alpha=0.8, label=f"attack ({int((~y).sum())})")
    panel.hist(s[y], edges, density=True, histtype="step", color="#0072B2", lw=1.8, label=f"live ({int(y.sum())})")
    if np.isfinite(threshold):
        panel.axvline(threshold, color="black", linestyle="--", label="threshold")
    panel.set_title(title)
    plain(panel, "score (higher is more live)", "density")
    panel.legend(frameon=False)
    return save(figure, path)


def draw_scores_by_kind(
    scores: ArrayLike, live: ArrayLike, kinds: Sequence[object], threshold: float, path: Path | str
) -> Path:
    """One panel a kind of attack, with the live samples outlined in each; what lies right of the line is accepted."""
    s, y, names = np.asarray(scores, dtype=float), np.asarray(live).astype(bool), np.asarray(kinds)
    for word, array in (("live", y), ("kinds", names)):
        if array.shape != s.shape or s.ndim != 1:
            raise ValueError(f"{word}: expected one a score, shape {s.shape}, found {array.shape}")
    shown = np.unique(names[~y]).tolist()
    if not shown:
        raise ValueError("live: expected attack samples, found none")
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = panels(2 * columns + 0.4, 1.6 * rows + 0.8, rows, columns, sharex=True)
    edges = np.histogram_bin_edges(s, 30)
    for panel, name in zip(axes.flat, shown, strict=False):
        attack = s[~y & (names == name)]
        panel.hist(attack, edges, density=True, color="#E69F00", label="attack")
        panel.hist(s[y], edges, density=True, histtype="step", color="#0072B2", lw=1.6, label="live")
        if np.isfinite(threshold):
            panel.axvline(threshold, color="black", linestyle="--", lw=1.2, label="threshold")
        panel.set_title(f"{name}\n{int((attack >= threshold).sum())} of {len(attack)} accepted", fontsize=9)
        plain(panel, "", "")
        panel.set_yticks([])
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    entries = axes[0, 0].get_legend_handles_labels()
    figure.legend(*entries, frameon=False, fontsize=9, loc="outside upper center", ncols=3)
    figure.supxlabel("score (higher is more live)", fontsize=10)
    return save(figure, path)
