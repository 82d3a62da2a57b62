"""Section "watching": what `diagnostics.watch` adds to a step with OGM and AdamW, at its default rate."""

from collections.abc import Callable
from contextvars import copy_context

import torch
from instruments.meters import interleaved, plain
from instruments.report import Report, share

from balancekit.diagnostics import watch
from balancekit.modulation import OGM, scale_updates

from .cases import late, sizes

RATE = 20  # the default of `watch`


def training(quick: bool) -> tuple[str, Callable[[], None], torch.optim.Optimizer, OGM, object]:
    """A step of three late-fused encoders, optimizer and modulation with it."""
    title, made = late(depth=2, grid=4) if quick else late()
    optimizer, ogm = torch.optim.AdamW(made.branches.param_groups(lr=1e-4)), OGM(alpha=0.5)
    logits, labels = {m: torch.randn(8, 10) for m in made.branches}, torch.arange(8)

    def step() -> None:
        optimizer.zero_grad()
        total, _ = made.losses()
        total.backward()
        scale_updates(optimizer, ogm(logits, labels))
        optimizer.step()

    return f"{title}, {sizes(made)}", step, optimizer, ogm, made


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Alone and watched, in turn."""
    title, alone, *_ = training(quick)
    _, step, optimizer, ogm, made = training(quick)
    context = copy_context()  # what listens to the actuators listens here alone
    watching = watch(ogm, optimizer=optimizer, branches=made.branches, every=RATE)  # type: ignore[attr-defined]
    context.run(watching.__enter__)
    steps = {"alone": plain(alone, RATE), "watched": plain(lambda: context.run(step), RATE)}
    times = interleaved(steps, rounds, warm=1)
    context.run(watching.__exit__, None, None, None)
    for name, values in times.items():
        report.keep("watching", "late fusion", name, "seconds", values)
    rows = [["watched, every 20 steps", share(times["watched"], times["alone"])]]
    report.table(f"time in % of the same step alone: {title}", ("", "time, %"), rows)
