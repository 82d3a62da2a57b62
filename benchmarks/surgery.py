"""What gradient surgery costs: whole training steps, as ratios to a plain step on the same losses.

    python benchmarks/surgery.py

Three encoders of an MLP each, in late fusion (one ordinary backward suffices) and coupled (separate passes). The floor
of a coupled step is M + 1 bare passes through the same graph, without any rule. Variants are interleaved in every
round, in rotating order; printed are medians over rounds with the quartiles. Nothing here is asserted anywhere.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import Branches, Rebalancer, ReGrad, Sum

NAMES = ("rgb", "depth", "ir")


class Model(nn.Module):
    """Three encoders of `depth` layers; coupled ones add a mix of the others' states after each layer."""

    def __init__(self, width: int, depth: int, *, coupled: bool) -> None:
        super().__init__()
        self.coupled = coupled
        self.encoders = nn.ModuleDict({n: nn.ModuleList(nn.Linear(width, width) for _ in range(depth)) for n in NAMES})
        self.heads = nn.ModuleDict({n: nn.Linear(width, 10) for n in NAMES})

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        state = dict(x)
        for layers in zip(*(self.encoders[n] for n in NAMES), strict=True):
            state = {n: F.gelu(layer(state[n])) for n, layer in zip(NAMES, layers, strict=True)}
            if self.coupled:
                mean = sum(state.values()) / len(state)
                state = {n: s + 0.1 * mean for n, s in state.items()}
        return {n: self.heads[n](s) for n, s in state.items()}

    def branches(self) -> Branches:
        return Branches(self, {n: [self.encoders[n], self.heads[n]] for n in NAMES})


def steps(model: Model, x: dict[str, Tensor], y: Tensor) -> dict[str, Callable[[], None]]:
    """The variants, each a whole forward and backward."""
    parameters = list(model.parameters())

    def losses() -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(x)
        return F.cross_entropy(sum(logits.values()), y), {n: F.cross_entropy(o, y) for n, o in logits.items()}

    def plain() -> None:
        total, unimodal = losses()
        (total + sum(unimodal.values())).backward()

    def bare_passes() -> None:
        total, unimodal = losses()
        for loss in unimodal.values():
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        total.backward()

    def with_rule(balancer: Rebalancer) -> Callable[[], None]:
        def step() -> None:
            total, unimodal = losses()
            balancer(total, unimodal).backward()

        return step

    variants = {"plain": plain, "bare passes": bare_passes}
    for rule in (Sum(), ReGrad()):
        for per in ("tensor", "branch"):
            variants[f"{type(rule).__name__} per {per}"] = with_rule(Rebalancer(model.branches(), rule, per=per))
    return variants


def measure(variants: dict[str, Callable[[], None]], model: Model, rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, interleaved."""
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for r in range(-2, rounds):  # two rounds to warm up
        for k in range(len(names)):
            name = names[(k + r) % len(names)]
            model.zero_grad()
            began = time.perf_counter()
            variants[name]()
            if r >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print(f"{date.today()}, {platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for coupled in (False, True):
        torch.manual_seed(0)
        model = Model(args.width, args.depth, coupled=coupled)
        x, y = {n: torch.randn(args.batch, args.width) for n in NAMES}, torch.randint(0, 10, (args.batch,))
        times = measure(steps(model, x, y), model, args.rounds)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        base = statistics.median(times["plain"])
        title = "coupled" if coupled else "late fusion"
        print(f"\n{title}: {millions:.1f} M parameters, batch {args.batch}; time over plain ({1000 * base:.0f} ms)")
        for name, values in times.items():
            ratios = [a / b for a, b in zip(values, times["plain"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{name:>18}  {middle:5.2f}   quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
