"""Section "watching": what `diagnostics.watch` adds to a step with OGM and AdamW, at its default rate.

The same training goes on with and without, in blocks of as many steps as there are from one record to the next. The
ratio of two blocks varies by several in a hundred with whatever else the machine does, so the seconds are also taken
that pass inside the watch's own functions: all that it calls, on one thread, of the block's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from instruments.meters import interleaved, plain
from instruments.report import Report, share

from balancekit.diagnostics import watch
from balancekit.diagnostics._gradients import GradientChanges
from balancekit.diagnostics._watch import Watched
from balancekit.modulation import OGM, scale_updates

from .cases import late, sizes

RATE = 20  # the default of `watch`
CALLED = {Watched: ("_before", "_after", "_heard", "_acted"), GradientChanges: ("_note",)}


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Alone and watched, in turn."""
    title, made = late(depth=2, grid=4) if quick else late()
    optimizer, ogm = torch.optim.AdamW(made.branches.param_groups(lr=1e-4)), OGM(alpha=0.5)
    logits, labels = {m: torch.randn(8, 10) for m in made.branches}, torch.arange(8)

    def alone() -> None:
        for _ in range(RATE):
            optimizer.zero_grad()
            total, _ = made.losses()
            total.backward()
            scale_updates(optimizer, ogm(logits, labels))
            optimizer.step()

    inside: list[float] = []

    def watched() -> None:
        with timed() as spent, watch(ogm, optimizer=optimizer, branches=made.branches, every=RATE):
            alone()
        inside.append(sum(spent))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = interleaved({"alone": plain(alone), "watched": plain(watched)}, rounds, warm=1, clock=time.thread_time)
    torch.set_num_threads(threads)
    inside = inside[-rounds:]
    for name, values in (*times.items(), ("inside", inside)):
        report.keep("watching", "late fusion", name, "seconds", values)
    rows = [
        ["watched, every 20 steps", share(times["watched"], times["alone"])],
        ["of it inside the watch", share(inside, times["watched"])],
    ]
    report.table(f"thread time in % of the same step alone: {title}, {sizes(made)}", ("", "time, %"), rows)


@contextmanager
def timed() -> Iterator[list[float]]:
    """Within the block, collect the thread seconds of each call that a watch gets, but for those inside another."""
    spent: list[float] = []
    originals = [(kind, name, getattr(kind, name)) for kind, names in CALLED.items() for name in names]

    def measured(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            result = call(*args, **kwargs)
            spent.append(time.thread_time() - began)
            return result

        return run

    for kind, name, call in originals:
        setattr(kind, name, measured(call))
    yield spent
    for kind, name, call in originals:
        setattr(kind, name, call)
