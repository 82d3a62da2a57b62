"""Section "walk": the look at the graph in every call, beside a plain backward of three ViT-B streams."""

import statistics
import time

import torch
from instruments.meters import without_collection
from instruments.report import Report, share

from balancekit import Rebalancer, ReGrad
from balancekit.surgery._graph import Walk

from .cases import NAMES, sizes
from .problem import problem
from .streams import Streams


def nodes(*losses: torch.Tensor) -> int:
    """How many nodes the graph of the losses has."""
    stack = [loss.grad_fn for loss in losses]
    seen = set(stack)
    while stack:
        fresh = {node for node, _ in stack.pop().next_functions if node is not None} - seen
        seen |= fresh
        stack += fresh
    return len(seen)


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """One forward a round, then the walk, the call, and a plain backward."""
    torch.manual_seed(0)
    depth = 2 if quick else 12
    model = Streams(NAMES, width=768, depth=depth, heads=12, exchange=range(depth))
    made = problem(model, batch=2, tokens=197)
    balancer = Rebalancer(made.branches, ReGrad())
    walks, calls, backwards = [], [], []
    count = 0
    for r in range(-1, min(rounds, 3)):
        model.zero_grad(set_to_none=True)
        total, losses = made.losses()
        count = nodes(total, *losses.values())
        with without_collection():
            began = time.perf_counter()
            walk = Walk()
            for loss in losses.values():
                walk.reach(loss)
            walked = time.perf_counter()
            balancer(total, losses)
            called = time.perf_counter()
            (total + sum(losses.values())).backward()
            ended = time.perf_counter()
        if r >= 0:
            walks.append(walked - began)
            calls.append(called - walked)
            backwards.append(ended - called)
    title = f"three streams of {depth} ViT-B blocks, batch 2"
    for name, values in (("walk", walks), ("call", calls), ("plain backward", backwards)):
        report.keep("walk", title, name, "seconds", values)
    rows = [
        ("the walk from three losses", f"{1000 * statistics.median(walks):.1f}", share(walks, backwards)),
        ("the whole call of the Rebalancer", f"{1000 * statistics.median(calls):.1f}", share(calls, backwards)),
        ("plain backward", f"{1000 * statistics.median(backwards):.1f}", "100"),
    ]
    report.table(
        f"The walk, {title}, coupled in every block: {sizes(made)}, {count} nodes.",
        ("", "ms", "% of a plain backward"),
        rows,
    )
