"""Section "growth": time and peak memory against modalities, parameters and tensors, with a straight line through each.

Each tensor of a chain but the last layer's is reached by every loss. All points of an axis are interleaved. Against
modalities the rows are M for each of M branches, so that their memory is no straight line: R² says how far from one.
"""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from instruments.meters import Variant, interleaved, peak_of
from instruments.report import Report

from .chain import Chains
from .ours import rebalanced
from .problem import problem
from .procedures import bare_passes, plain

STEPS = {"plain": plain, "M + 1 bare passes": bare_passes, "ours, per tensor": rebalanced}


class Axis(NamedTuple):
    """What grows, the points, and the model at a point."""

    title: str
    points: tuple[int, ...]
    make: Callable[[int], Chains]


class Curve(NamedTuple):
    """One variant along an axis, with the line ``a + b x`` by least squares, and its R²."""

    axis: str
    measure: str
    variant: str
    x: Sequence[float]
    y: Sequence[float]
    a: float
    b: float
    r2: float

    def law(self) -> str:
        return f"{self.a:.3g} + {self.b:.3g} x"


def axes(*, quick: bool) -> list[Axis]:
    return [
        Axis(
            "modalities, each of 8 layers and 2.1 M parameters",
            (2, 3, 4) if quick else (2, 3, 4, 5, 6, 7, 8),
            lambda m: Chains(m, width=512, depth=8),
        ),
        Axis(
            "million parameters, in 3 modalities of 8 layers",
            (1, 3, 10) if quick else (1, 3, 10, 30, 100),
            lambda millions: Chains(3, width=round((millions * 1e6 / 24) ** 0.5), depth=8),
        ),
        Axis(
            "tensors, in 3 modalities, 6 M parameters",
            (12, 60, 120) if quick else (12, 30, 102, 300, 1002, 3000),
            lambda tensors: Chains(3, width=round((6e6 / (tensors / 2)) ** 0.5), depth=tensors // 6),
        ),
    ]


def curve(axis: str, measure: str, variant: str, x: Sequence[float], y: Sequence[float]) -> Curve:
    b, a = np.polyfit(x, y, 1)
    scatter = np.var(y)
    r2 = 1 - np.mean((np.asarray(y) - a - b * np.asarray(x)) ** 2) / scatter if scatter else 1.0
    return Curve(axis, measure, variant, x, y, float(a), float(b), float(r2))


def measured(report: Report, axis: Axis, rounds: int) -> list[Curve]:
    """The curves of one axis: milliseconds, time over plain, and peak MB."""
    torch.manual_seed(0)
    problems = {x: problem(axis.make(x), batch=32, tokens=1) for x in axis.points}
    variants = {(s, x): Variant(made.model, STEPS[s](made)) for x, made in problems.items() for s in STEPS}
    times = interleaved(variants, rounds, warm=1)
    peaks = {key: peak_of(variant) for key, variant in variants.items()}
    for (step, x), values in times.items():
        report.keep("growth", f"{x} {axis.title}", step, "seconds", values)
        report.keep("growth", f"{x} {axis.title}", step, "peak bytes", [peaks[step, x]])
    points = list(map(float, axis.points))
    curves = []
    for step in STEPS:
        middle = [statistics.median(times[step, x]) for x in axis.points]
        over = [
            statistics.median(a / b for a, b in zip(times[step, x], times["plain", x], strict=True))
            for x in axis.points
        ]
        curves.append(curve(axis.title, "time, ms", step, points, [1000 * t for t in middle]))
        curves.append(curve(axis.title, "time / plain", step, points, over))
        curves.append(curve(axis.title, "peak, MB", step, points, [peaks[step, x] / 1e6 for x in axis.points]))
    return curves


def run(report: Report, *, quick: bool, rounds: int, out: Path) -> None:
    """Three axes, a table of laws, and a picture."""
    curves = [c for axis in axes(quick=quick) for c in measured(report, axis, max(2, rounds // 3))]
    for axis in axes(quick=quick):
        shown = [c for c in curves if c.axis == axis.title and (c.measure, c.variant) != ("time / plain", "plain")]
        rows = [(c.variant, c.measure, c.law(), f"{c.r2:.3f}") for c in shown]
        title = f"Growth, x: {axis.title}; lines by least squares through the medians at {axis.points}, batch 32."
        report.table(title, ("", "", "law", "R²"), rows)
    try:
        from .growth_picture import draw
    except ImportError:
        report.say("matplotlib is not installed: no picture")
        return
    draw(curves, out / "growth.png")
    report.say(f"written: {out / 'growth.png'}")
