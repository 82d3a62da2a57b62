"""Section "surgery": the arithmetic alone, without forward and passes, as a share of the step.

Ours: the engine's ``operate`` (Gram matrices, weights, combination) without the passes that it runs, and the call of
the Rebalancer (checks, walk). Others: what their step spends outside the forward and outside autograd's functions.
"""

from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec

import torch
from instruments.meters import Variant, seconds, without_collection
from instruments.report import Report, share, spread
from instruments.stopwatch import Stopwatch

from balancekit import Rebalancer
from balancekit.surgery import _graft

from .cases import coupled, frozen
from .ours import rebalanced
from .problem import Problem
from .procedures import Run, matrix, plain, released, torchjd

Measured = tuple[float, float]  # seconds of the whole step, and of the surgery in it


def ours(made: Problem, per: str) -> Callable[[], Measured]:
    step = rebalanced(made, per=per)

    def measure() -> Measured:
        watch = Stopwatch()
        with ExitStack() as stack:
            stack.enter_context(watch.watching("passes", "grad", torch.autograd))
            stack.enter_context(watch.watching("operate", "operate", _graft))
            stack.enter_context(watch.watching("call", "__call__", Rebalancer))
            whole = seconds(Variant(made.model, step))
        spent = watch.seconds
        return whole, spent["call"] + spent["operate"] - spent["passes"]

    return measure


def theirs(made: Problem, build: Callable[[Problem], Run]) -> Callable[[], Measured]:
    watch = Stopwatch()
    step = build(made._replace(losses=watch.wrap("forward", made.losses)))

    def measure() -> Measured:
        watch.seconds.clear()
        with ExitStack() as stack:
            stack.enter_context(watch.watching("passes", "grad", torch.autograd))
            stack.enter_context(watch.watching("passes", "backward", torch.autograd))
            whole = seconds(Variant(made.model, step))
        return whole, whole - watch.seconds["forward"] - watch.seconds["passes"]

    return measure


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """The two models whose branches meet."""
    for make in (coupled,) if quick else (coupled, frozen):
        title, made = make(depth=2, grid=4) if quick else make()
        measures = {"plain": theirs(made, plain)}
        measures |= {f"ours, per {per}": ours(made, per) for per in ("tensor", "branch")}
        measures["released procedure, re-derived"] = theirs(made, released)
        measures["matrix of all gradients, as LibMTL"] = theirs(made, matrix)
        if find_spec("torchjd"):
            measures["TorchJD, one pass a loss"] = theirs(made, lambda made: torchjd(made, sequential=True))
        names = list(measures)
        found: dict[str, list[Measured]] = {name: [] for name in names}
        for r in range(-1, rounds // 2 + 1):
            with without_collection():
                for k in range(len(names)):
                    name = names[(k + r) % len(names)]
                    measured = measures[name]()
                    if r >= 0:
                        found[name].append(measured)
        base = [whole for whole, _ in found["plain"]]
        rows = []
        for name, values in found.items():
            wholes, parts = zip(*values, strict=True)
            report.keep("surgery", title, name, "seconds", wholes)
            report.keep("surgery", title, name, "seconds of surgery", parts)
            rows.append((name, spread([1000 * part for part in parts]), share(parts, wholes), share(parts, base)))
        header = ("", "ms", "% of its own step", "% of a plain step")
        report.table(f"Everything but forward and passes, {title}.", header, rows)
