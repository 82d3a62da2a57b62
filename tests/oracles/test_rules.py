"""MMPareto, PCGrad, MinNorm and the bridge to TorchJD against loops on gradient vectors; alone, and in the engine."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchjd import aggregation as torchjd

from balancekit import MinNorm, MMPareto, PCGrad, Rebalancer, Rule, Step, from_torchjd
from balancekit.surgery import min_norm_weights, pcgrad_weights
from tests.models import Toy, batches
from tests.oracles import min_norm, mmpareto, pcgrad

F64 = torch.float64

Granules = list[list[np.ndarray]]  # a branch: its granules, each with all rows


def by_mmpareto(branch: Granules) -> list[np.ndarray]:
    return mmpareto.encoder([rows[0] for rows in branch], [sum(rows[1:]) for rows in branch], 1.5)


def by_pcgrad(branch: Granules) -> list[np.ndarray]:
    return [pcgrad.combined(rows) for rows in branch]


def by_min_norm(branch: Granules) -> list[np.ndarray]:
    return [min_norm.combined(rows) for rows in branch]


METHODS = [
    pytest.param(MMPareto(), by_mmpareto, id="MMPareto"),
    pytest.param(PCGrad(), by_pcgrad, id="PCGrad"),
    pytest.param(MinNorm(), by_min_norm, id="MinNorm"),
]


def step_of(m: int, owner: Tensor, units: Tensor) -> Step:
    return Step(*torch.zeros(3, m, dtype=F64), torch.ones(m, dtype=torch.bool), owner, units)


def combined(rule: Rule, rows: Tensor) -> Tensor:
    """One granule of one branch."""
    step = step_of(len(rows) - 1, torch.tensor([0]), torch.ones(1, dtype=F64))
    return rule((rows @ rows.T)[None], step)[0] @ rows


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((1.0, 0.0), (1.0, 1.0), (3.0, 1.5)),  # aligned: 1.5 (a + b)
        ((1.0, 0.0), (0.0, 1.0), (1.5, 1.5)),  # orthogonal counts as conflict, here with the same k
        ((3.0, 0.0), (0.0, 1.0), (0.9, 2.7)),  # k = (0.1, 0.9), |g| = 1.9 made √10 long: 1.5 √10 (0.6, 1.8) / √3.6
        ((2.0, 0.0), (-2.0, 0.0), (0.0, 0.0)),  # opposite, nothing is left
        ((2.0, 0.0), (-1.0, 0.0), (0.0, 0.0)),  # and no factor makes it longer
        ((2.0, 0.0), (0.0, 0.0), (3.0, 0.0)),  # one alone
    ],
)
def test_mmpareto_by_hand(a: tuple, b: tuple, expected: tuple) -> None:
    found = combined(MMPareto(), torch.tensor([a, b], dtype=F64))
    if expected == (0.9, 2.7):
        expected = tuple(1.5 * x * (10 / 3.6) ** 0.5 for x in (0.6, 1.8))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=1e-12)


def test_pcgrad_by_hand() -> None:
    found = combined(PCGrad(), torch.tensor([(1.0, 0.0), (-1.0, 1.0)], dtype=F64))
    assert found.tolist() == [0.5, 1.5]


def test_a_row_whose_square_is_lost_is_no_conflict_for_pcgrad() -> None:
    """<a, b> = -1e-200 can be told, |b|² = 1e-400 not."""
    gram = torch.tensor([[[1.0, -1e-200], [-1e-200, 0.0]]], dtype=F64)
    assert pcgrad_weights(gram).tolist() == [[1.0, 0.0]]


def test_min_norm_by_hand() -> None:
    found = combined(MinNorm(), torch.tensor([(2.0, 0.0), (0.0, 1.0), (3.0, 3.0)], dtype=F64))
    torch.testing.assert_close(found, torch.tensor([0.4, 0.8], dtype=F64), rtol=1e-12, atol=1e-12)


def test_granules_of_other_lengths_leave_the_shortest_combination() -> None:
    rows = torch.tensor([(1.0, 0.0), (-2.0, 0.0), (0.0, 3.0)], dtype=F64)
    gram = (rows @ rows.T) * torch.tensor([1.0, 1e-24, 1e24], dtype=F64)[:, None, None]
    torch.testing.assert_close(min_norm_weights(gram), min_norm_weights(gram[:1]).expand(3, 3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rule", "literal"), METHODS)
def test_drawn_vectors(rule: Rule, literal: Callable[[Granules], list[np.ndarray]]) -> None:
    """Branches of one to three granules, each in its own unit; rows that are zero, equal, opposite, dependent."""
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        m, granules = 1 + number % 4, 1 + number % 3
        rows = torch.randn(granules, 1 + m, 2 + number % 5, dtype=F64, generator=generator)
        if number % 4 == 1:
            rows = rows.round()
        if number % 4 == 2:
            rows[:, 1] = -rows[:, 0]
        if number % 5 == 3:
            rows[0, torch.randint(0, 1 + m, (), generator=generator)] = 0
        units = 10.0 ** torch.randint(-3, 3, (granules,), generator=generator).double()
        step = step_of(m, torch.zeros(granules, dtype=torch.int64), units)
        weights = rule(rows @ rows.mT, step)
        found = (weights.unsqueeze(-1) * rows).sum(1) * units.unsqueeze(-1)
        expected = literal([list((unit * each).numpy()) for unit, each in zip(units, rows, strict=True)])
        for one, other, unit in zip(found, expected, units, strict=True):
            torch.testing.assert_close(one / unit, torch.from_numpy(other) / unit, rtol=1e-8, atol=1e-8)


def test_min_norm_is_shortest_on_dependent_and_uneven_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    for number in range(300):
        r = 2 + number % 7
        rows = torch.randn(r, 2 + number % 10, dtype=F64, generator=generator) + number % 2
        if number % 3 == 1:
            rows[r // 2 :] = rows[: r - r // 2].clone()
        if number % 3 == 2:
            rows *= 10 ** (4 * torch.rand(r, 1, dtype=F64, generator=generator) - 2)
        shortest = rows.norm(dim=-1).min().item()
        expected = float(np.linalg.norm(min_norm.combined(list(rows.numpy()))))
        for dtype, excess in ((F64, 1e-12), (torch.float32, 1e-4)):
            typed = rows.to(dtype)
            step = step_of(r - 1, torch.tensor([0]), torch.ones(1))
            weights = MinNorm()((typed @ typed.T)[None], step)[0].double()
            assert (weights >= 0).all()
            assert abs(weights.sum().item() - 1) < 1e-6
            assert (weights @ rows).norm().item() <= expected + excess * shortest


def reference(
    literal: Callable[[Granules], list[np.ndarray]],
    total: Tensor | None,
    losses: dict[str, Tensor],
    branches: dict[str, list[Tensor]],
    rest: list[Tensor],
    *,
    weight: float,
    per: str,
    rest_sums: bool,
) -> dict[Tensor, Tensor]:
    """The gradient of every tensor: one backward pass for each loss, then the method on each branch."""
    every = [t for tensors in branches.values() for t in tensors] + rest
    objectives = [torch.zeros((), dtype=F64) if total is None else total, *(weight * loss for loss in losses.values())]
    rows = []
    for objective in objectives:
        found = [None] * len(every)
        if objective.requires_grad:
            found = torch.autograd.grad(objective, every, retain_graph=True, allow_unused=True)
        rows.append({t: torch.zeros_like(t) if g is None else g for t, g in zip(every, found, strict=True)})
    result = {t: sum(row[t] for row in (rows if rest_sums else rows[:1])) for t in rest}
    for tensors in branches.values():
        granules = [tensors] if per == "branch" else [[t] for t in tensors]
        flat = [[torch.cat([row[t].reshape(-1) for t in granule]).numpy() for row in rows] for granule in granules]
        for granule, out in zip(granules, literal(flat), strict=True):
            parts = torch.from_numpy(out).split([t.numel() for t in granule])
            result.update({t: part.reshape(t.shape) for t, part in zip(granule, parts, strict=True)})
    return result


@pytest.mark.parametrize("per", ["tensor", "branch"])
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize(("rule", "literal"), METHODS)
def test_the_rebalancer_on_drawn_models(
    rule: Rule, literal: Callable[[Granules], list[np.ndarray]], coupled: bool, per: str
) -> None:
    for seed in range(24):
        m, rest = 2 + seed % 2, ("sum", "total")[seed // 2 % 2]
        model = Toy(m, coupled=coupled, seed=seed)
        ((x, y),) = batches(1, m, seed=seed)
        total, losses = model(x, y)
        if seed % 3 == 2:
            del losses[f"m{seed % m}"]
        if seed % 8 == 4:
            total, rest = None, "sum"
        branches = model.branches()
        expected = reference(
            literal,
            total,
            losses,
            {name: list(parameters) for name, parameters in branches.items()},
            model.rest(),
            weight=0.3,
            per=per,
            rest_sums=rest == "sum",
        )
        Rebalancer(branches, rule, weight=0.3, per=per, rest=rest)(total, losses).backward()
        for parameter, gradient in expected.items():
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-9)


AGGREGATORS = [
    torchjd.UPGrad(),
    torchjd.DualProj(),
    torchjd.MGDA(),
    torchjd.AlignedMTL(),
    torchjd.IMTLG(),
    torchjd.Mean(),
]


@pytest.mark.parametrize("aggregator", AGGREGATORS, ids=str)
def test_torchjd_as_a_rule_is_its_own_aggregator(aggregator: torchjd.Aggregator) -> None:
    """On the matrix of the rows that are not zero; divided by the root of the trace, on which the bridge insists."""
    weighting = torchjd.MeanWeighting() if isinstance(aggregator, torchjd.Mean) else aggregator.gramian_weighting
    rule = from_torchjd(weighting)
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        m = 1 + number % 4
        rows = torch.randn(3, 1 + m, 6, dtype=F64, generator=generator)
        rows[1, number % (1 + m)] = 0
        weights = rule(rows @ rows.mT, step_of(m, torch.arange(3) % m, torch.ones(3)))
        for granule, weight in zip(rows, weights, strict=True):
            there = granule[granule.any(-1)]
            scale = there.norm()
            torch.testing.assert_close(weight @ granule, scale * aggregator(there / scale), rtol=1e-9, atol=1e-9)
            assert (weight[~granule.any(-1)] == 0).all()


@pytest.mark.parametrize("coupled", [True, False])
def test_torchjd_through_the_rebalancer(coupled: bool) -> None:
    aggregator = torchjd.UPGrad()

    def literal(branch: Granules) -> list[np.ndarray]:
        out = []
        for rows in branch:
            there = torch.tensor(np.stack([row for row in rows if row.any()]))
            out.append((there.norm() * aggregator(there / there.norm())).numpy())
        return out

    for seed in range(6):
        model = Toy(3, coupled=coupled, seed=seed)
        ((x, y),) = batches(1, 3, seed=seed)
        total, losses = model(x, y)
        branches = model.branches()
        owned = {name: list(parameters) for name, parameters in branches.items()}
        expected = reference(literal, total, losses, owned, [], weight=0.3, per="tensor", rest_sums=True)
        Rebalancer(branches, from_torchjd(aggregator.gramian_weighting), weight=0.3)(total, losses).backward()
        for parameter, gradient in expected.items():
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-8)
