"""Section "coupling": where only a part of the model meets, only that part needs separate passes."""

from functools import partial

import torch
from instruments.meters import Variant, interleaved, peak_of
from instruments.report import Report, ratio

from .cases import NAMES, TOKENS
from .ours import rebalanced
from .problem import Problem, problem
from .procedures import bare_passes, plain
from .streams import Streams

WIDTH = 96


def cases(*, quick: bool) -> dict[str, Streams]:
    """Three encoders with exchange at the bottom or at the top; a shared trunk; a branch apart."""
    torch.manual_seed(0)
    depth = 6 if quick else 12
    build = partial(Streams, NAMES, width=WIDTH, heads=4)
    made = {}
    for k in (1,) if quick else (1, 3, 6):
        made[f"exchange in {k} of {depth} blocks, bottom"] = build(depth=depth, exchange=range(k))
        made[f"exchange in {k} of {depth} blocks, top"] = build(depth=depth, exchange=range(depth - k, depth))
    if not quick:
        made[f"exchange in {depth} of {depth} blocks"] = build(depth=depth, exchange=range(depth))
    made[f"a shared trunk of {depth} blocks, then {depth // 3} a branch"] = build(depth=depth // 3, trunk=depth)
    pair = (NAMES[:2], NAMES[1::-1])
    made["two meet in all blocks, one apart"] = build(depth=depth, exchange=range(depth), edges=pair)
    return made


def variants(made: Problem) -> dict[str, Variant]:
    steps = {"plain": plain(made), "bare passes": bare_passes(made), "ours": rebalanced(made)}
    steps["ours, low_memory"] = rebalanced(made, low_memory=True)
    return {name: Variant(made.model, step) for name, step in steps.items()}


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Each case by itself, its variants interleaved."""
    rows = []
    names: list[str] = []
    for title, model in cases(quick=quick).items():
        steps = variants(problem(model, batch=8, tokens=17 if quick else TOKENS))
        times = interleaved(steps, max(2, rounds // 2), warm=1)
        peaks = {name: peak_of(variant) for name, variant in steps.items()}
        for name in steps:
            report.keep("coupling", title, name, "seconds", times[name])
            report.keep("coupling", title, name, "peak bytes", [peaks[name]])
        names = [name for name in steps if name != "plain"]
        time = [ratio(times[name], times["plain"]) for name in names]
        rows.append((title, *time, *(f"{peaks[name] / peaks['plain']:.2f}" for name in names)))
    header = ("", *(f"time: {name}" for name in names), *(f"peak: {name}" for name in names))
    report.table("Partly coupled models, ReGrad per tensor; all over a plain step.", header, rows)
