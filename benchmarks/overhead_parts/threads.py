"""Section "threads": the bare passes from Python threads of one core each, against one after another on all cores."""

import statistics
from concurrent.futures import ThreadPoolExecutor

import torch
from instruments.meters import Variant, interleaved
from instruments.report import Report, ratio
from torch import Tensor

from .cases import coupled
from .problem import Problem
from .procedures import Run


def one_after_another(made: Problem) -> Run:
    owned = made.owned()

    def step() -> None:
        for loss in made.losses()[1].values():
            torch.autograd.grad(loss, owned, retain_graph=True, allow_unused=True)

    return step


def at_once(made: Problem, pool: ThreadPoolExecutor) -> Run:
    owned = made.owned()

    def one(loss: Tensor) -> None:
        torch.set_num_threads(1)  # of this thread
        torch.autograd.grad(loss, owned, retain_graph=True, allow_unused=True)

    def step() -> None:
        losses = made.losses()[1]
        list(pool.map(one, losses.values()))

    return step


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """The coupled model; forward included in both."""
    title, made = coupled(depth=2) if quick else coupled()
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(len(made.branches)) as pool:
        concurrent = at_once(made, pool)

        def restored() -> None:
            concurrent()
            torch.set_num_threads(cores)  # the number for threads to come is shared

        steps = {"one after another": one_after_another(made), "threads": restored}
        times = interleaved({name: Variant(made.model, step) for name, step in steps.items()}, rounds)
    for name, values in times.items():
        report.keep("threads", title, name, "seconds", values)
    report.say(
        f"\nForward and {len(made.branches)} passes, {title}: {len(made.branches)} Python threads of 1 core each take "
        f"{ratio(times['threads'], times['one after another'])} times as long as one after another on {cores} "
        f"({1000 * statistics.median(times['one after another']):.0f} ms)."
    )
