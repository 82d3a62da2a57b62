"""Section "whole": time and peak memory of whole training steps, beside what others do on the same losses."""

import statistics
from importlib.util import find_spec

from instruments.meters import Variant, interleaved, peak_of
from instruments.report import Report, ratio

from .cases import coupled, frozen, late, sizes
from .ours import rebalanced
from .problem import Problem
from .procedures import bare_passes, matrix, plain, released, torchjd

HEADER = ("", "time / plain", "time / floor", "peak / plain", "peak, MB")


def variants(made: Problem, *, apart: bool, quick: bool) -> dict[str, Variant]:
    """What is compared; `apart`: no branches meet, so that the floor is the plain step."""
    model = made.model
    steps = {"plain": Variant(model, plain(made))}
    if not apart:
        steps["floor: M + 1 bare passes"] = Variant(model, bare_passes(made))
    for per in ("tensor", "branch"):
        steps[f"ours, per {per}"] = Variant(model, rebalanced(made, per=per))
    steps["ours, per tensor, low_memory"] = Variant(model, rebalanced(made, low_memory=True))
    if not apart:
        steps["ours, per branch, every=4"] = Variant(model, rebalanced(made, per="branch", every=4), repeat=4)
        step = rebalanced(made, per="branch", proxy=made.model.proxy())
        steps["ours, per branch, proxy: the last block"] = Variant(model, step)
    steps["released procedure, re-derived"] = Variant(model, released(made))
    steps["matrix of all gradients, as LibMTL"] = Variant(model, matrix(made))
    if find_spec("torchjd"):
        steps["TorchJD, one pass a loss"] = Variant(model, torchjd(made, sequential=True))
        if not quick:
            steps["TorchJD, defaults"] = Variant(model, torchjd(made, sequential=False))
    return steps


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Three models."""
    if not find_spec("torchjd"):
        report.say("TorchJD is not installed and left out: pip install 'torchjd[quadprog_projector]'")
    for make in (late, coupled, frozen):
        title, made = make(depth=2, grid=4) if quick else make()
        apart = make is late
        steps = variants(made, apart=apart, quick=quick)
        times = interleaved(steps, rounds, warm=1)
        peaks = {name: peak_of(variant) for name, variant in steps.items()}
        floor = "plain" if apart else "floor: M + 1 bare passes"
        for name in steps:
            report.keep("whole", title, name, "seconds", times[name])
            report.keep("whole", title, name, "peak bytes", [peaks[name]])
        rows = [
            (
                name,
                ratio(times[name], times["plain"]),
                ratio(times[name], times[floor]),
                f"{peaks[name] / peaks['plain']:.2f}",
                f"{peaks[name] / 1e6:.1f}",
            )
            for name in steps
        ]
        base = 1000 * statistics.median(times["plain"])
        report.table(f"Whole step, {title}: {sizes(made)}, batch 8; a plain step takes {base:.0f} ms.", HEADER, rows)
    report.say("Medians over interleaved rounds, quartiles in brackets. Peak: bytes above the level before the step,")
    report.say("so neither parameters nor inputs, but the gradients. every=4: the mean of four steps. TorchJD applies")
    report.say("another rule, UPGrad; its defaults batch the passes, with a loop where an operation cannot be batched.")
