"""Curves: training of the branches, gradients in conflict, ROC and DET."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from fas.evaluation.metrics import roc

from .style import panels, plain, save, style


def draw_convergence(
    curves: Mapping[str, Mapping[str, ArrayLike]], path: Path | str, *, x: str = "step", y: str = "loss of the branch"
) -> Path:
    """One panel a system, one line a branch: {system: {branch: values}}; the scale is shared."""
    if not curves:
        raise ValueError("curves: expected at least one system, found none")
    figure, axes = panels(3.6 * len(curves), 3.2, columns=len(curves))
    top = max(np.max(np.asarray(v)) for branches in curves.values() for v in branches.values())
    for panel, (system, branches) in zip(axes[0], curves.items(), strict=True):
        for number, (name, values) in enumerate(branches.items()):
            panel.plot(np.arange(1, len(np.asarray(values)) + 1), np.asarray(values), label=name, **style(number))
        panel.set_title(system)
        panel.set_ylim(0, 1.05 * top)
        plain(panel, x, y)
    axes[0, 0].legend(frameon=False)
    return save(figure, path)


def draw_roc(systems: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path | str) -> Path:
    """One line a system, {system: (scores, live)}; FPR on a logarithmic axis from one attack upwards."""
    if not systems:
        raise ValueError("systems: expected at least one system, found none")
    figure, axes = panels(6.2, 3.8)
    panel, lowest = axes[0, 0], 1.0
    for number, (name, (scores, live)) in enumerate(systems.items()):
        curve = roc(scores, live)
        step = 1 / curve.attacks_accepted[-1]
        lowest = min(lowest, step)
        panel.step(np.maximum(curve.fpr, step / 2), curve.tpr, where="post", label=name, **style(number))
    panel.set_xscale("log")
    panel.set_xlim(lowest / 2, 1)
    panel.set_ylim(0, 1.02)
    plain(panel, "attacks accepted (FPR); the left edge is half an attack", "live accepted (TPR)")
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    return save(figure, path)


def draw_det(systems: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path | str) -> Path:
    """Detection error trade-off: both error rates on normal-deviate axes, one line a system, {system: (scores, live)}.

    Scores that are normal in both classes give a straight line; on the grey diagonal the two rates are equal. Rates of
    0 are drawn at half a sample.
    """
    if not systems:
        raise ValueError("systems: expected at least one system, found none")
    figure, axes = panels(6.2, 4)
    panel, lowest = axes[0, 0], 0.05
    for number, (name, (scores, live)) in enumerate(systems.items()):
        curve = roc(scores, live)
        rates = []
        for rate, count in ((curve.fpr, curve.attacks_accepted[-1]), (1 - curve.tpr, curve.live_accepted[-1])):
            lowest = min(lowest, 0.5 / count)
            rates.append(np.clip(rate, 0.5 / count, 1 - 0.5 / count))
        panel.plot(*rates, label=name, **style(number))
    panel.plot([lowest, 0.9], [lowest, 0.9], color="0.8", lw=1, zorder=0)
    ticks = [t for t in (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8) if t >= lowest]
    for axis in ("x", "y"):
        getattr(panel, f"set_{axis}scale")("function", functions=(ndtri, ndtr))
        getattr(panel, f"set_{axis}lim")(lowest, 0.9)
        getattr(panel, f"set_{axis}ticks")(ticks, [f"{100 * t:g} %" for t in ticks], minor=False)
    plain(panel, "attacks accepted (APCER)", "live rejected (BPCER)")
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    return save(figure, path)


def draw_conflicts(conflicts: Mapping[str, ArrayLike], path: Path | str, *, width: int = 25) -> Path:
    """One line a system, {system: share of pairs of gradients in conflict, by step}, a running mean over `width`."""
    if not conflicts:
        raise ValueError("conflicts: expected at least one system, found none")
    figure, axes = panels(4.8, 3.4)
    for number, (name, values) in enumerate(conflicts.items()):
        sums = np.pad(np.cumsum(np.asarray(values, dtype=float)), (1, 0))
        ends = np.arange(1, len(sums))
        starts = np.maximum(0, ends - width)
        axes[0, 0].plot(ends, 100 * (sums[ends] - sums[starts]) / (ends - starts), label=name, **style(number))
    axes[0, 0].set_ylim(0, 100)
    plain(axes[0, 0], "step with surgery", f"pairs in conflict, % (mean of {width} steps)")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return save(figure, path)
