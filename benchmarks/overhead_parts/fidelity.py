"""Section "fidelity": how near the approximations come to the exact rule, along a training of a small coupled model.

In every step each balancer sees the same batch at the same parameters; the exact one moves them. Compared are what
ReGrad reads off the inner products (aligned, or conflicted: not above zero), and the gradients of the branches: whole,
and without the total's part, which no rule touches. Steps in which `every` measures anew are left out: there it is the
exact rule. With a hub, two modalities beside it are two exchanges apart: in
the last block one never reaches the other.
"""

import statistics

import torch
from instruments.report import Report
from torch import Tensor

from balancekit import Branches, Rebalancer, ReGrad
from balancekit.surgery import Surgery

from .cases import NAMES
from .problem import banks_of, losses_of
from .streams import Streams

CLASSES, TOKENS, WIDTH = 4, 9, 32
STRENGTH = {"rgb": 1.0, "depth": 0.5, "ir": 0.25}  # of the class signal beside noise of 1
CONFIDENCE = {"rgb": 0.9, "depth": 0.7, "ir": 0.5}
HELD = {"every=4": 4, "every=16": 16}


def balancers_of(branches: Branches, proxies: dict[str, Branches]) -> dict[str, Rebalancer]:
    return {
        "exact": Rebalancer(branches, ReGrad(), per="branch"),
        **{name: Rebalancer(branches, ReGrad(), per="branch", every=every) for name, every in HELD.items()},
        **{name: Rebalancer(branches, ReGrad(), per="branch", proxy=proxy) for name, proxy in proxies.items()},
    }


def aligned(surgery: Surgery) -> Tensor:
    """Whether two modalities' gradients are aligned, branch by branch, pair by pair."""
    gram = surgery.gram[surgery.step.owner.argsort(), 1:, 1:]
    i, j = torch.triu_indices(gram.shape[-1], gram.shape[-1], 1)
    return gram[:, i, j] > 0


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """One training; `rounds` plays no part, as nothing is timed."""
    torch.manual_seed(0)
    model = Streams(NAMES, width=WIDTH, depth=3, heads=4, exchange=range(3), classes=CLASSES)
    owned = [p for parameters in model.branches().values() for p in parameters]
    means = {name: torch.randn(CLASSES, TOKENS, WIDTH) for name in NAMES}
    proxies = {"proxy: the last block": model.proxy(), "proxy: the last two blocks": model.proxy(last=2)}
    balancers = balancers_of(model.branches(), proxies)
    seen: dict[str, Surgery] = {}
    for name, balancer in balancers.items():
        balancer.register_step_hook(lambda surgery, name=name: seen.__setitem__(name, surgery))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    banks = None
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in balancers if name != "exact"}
    count = 10 if quick else 100
    for step in range(count):
        y = torch.randint(0, CLASSES, (16,))
        x = {n: STRENGTH[n] * means[n][y] + torch.randn(len(y), TOKENS, WIDTH) for n in NAMES}
        banks = banks_of(model, x, y) if banks is None else banks
        total, losses = losses_of(model, banks, x, y)
        untouched = flat(list(torch.autograd.grad(total, owned, retain_graph=True)))
        gradients: dict[str, Tensor] = {}
        for name in [*found, "exact"]:  # the exact one last: its gradients stay for the optimiser
            optimizer.zero_grad()
            balancers[name](total, losses, confidence=CONFIDENCE).backward(retain_graph=True)
            gradients[name] = flat([p.grad for p in owned if p.grad is not None])
        for name, values in found.items():
            if name in HELD and step % HELD[name] == 0:
                continue
            agreeing = (aligned(seen[name]) == aligned(seen["exact"])).float().mean()
            a, b = gradients[name], gradients["exact"]
            whole = torch.cosine_similarity(a, b, 0)
            own = torch.cosine_similarity(a - untouched, b - untouched, 0)
            values.append((100 * float(agreeing), float(whole), float(own)))
        optimizer.step()
        with torch.no_grad():
            for name, feature in model.features(x).items():
                banks[name].update(feature, y)
    header = ("", "aligned or not: equal, %", "cosine, whole gradient", "cosine, unimodal part")
    rows = []
    for name, values in found.items():
        columns = list(zip(*values, strict=True))
        for measure, column in zip(header[1:], columns, strict=True):
            report.keep("fidelity", "small coupled model", name, measure, column)
        means_sds = [(statistics.mean(column), statistics.stdev(column)) for column in columns]
        rows.append((name, *(f"{mean:.3f} ± {sd:.3f}" for mean, sd in means_sds)))
    report.table(
        f"Fidelity to the exact rule per branch, mean ± sd over {count} training steps, measured ones left out.",
        header,
        rows,
    )
