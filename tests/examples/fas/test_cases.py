"""ReGrad in one of its cases: against the two others it lies between, and against its formula in plain vectors."""

import pytest
import torch
from fas.systems.cases import OnlyWhere
from torch import Tensor

from balancekit import ReGrad, Sum
from balancekit.surgery import Step

NAMES = 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(speed: list[float], present: list[bool], confidence: list[float], granules: int) -> Step:
    there = torch.tensor(present)
    return Step(
        losses=torch.where(there, 1.0, 0.0).double(),
        confidence=torch.tensor(confidence).double(),
        speed=torch.tensor(speed).double().where(there, -torch.inf),
        present=there,
        owner=torch.arange(granules) % NAMES,
        units=torch.ones(granules).double(),
    )


def gram(rows: Tensor) -> Tensor:
    return rows @ rows.mT


def regulated(a: Tensor, g: Tensor) -> tuple[Tensor, bool]:
    """R(a ← g) of Eq. 5, and whether the two are aligned."""
    dot, square = (a * g).sum(), (a * a).sum()
    if dot > 0 and square > 0:
        return dot / square * a, True
    return g - (dot / square * a if square > 0 else torch.zeros_like(a)), False


def literal(case: str, rows: Tensor, facts: Step) -> Tensor:
    """The gradient of each granule, "g d", as the module's docstring writes it."""
    fastest = facts.speed[facts.present].max()
    out = []
    for gradients, b in zip(rows, facts.owner.tolist(), strict=True):
        others = [k for k in range(NAMES) if k != b]
        own, u = gradients[1 + b], facts.confidence
        if facts.present[b] and facts.speed[b] == fastest:
            s = sum(gradients[1 + k] for k in others)
            part, aligned = regulated(s, own)
            applies = aligned == (case == "aligned")
            delta = s + (u[b] * part if applies else own)
        else:
            delta = own.clone()
            for k in others:
                part, aligned = regulated(own, gradients[1 + k])
                applies = aligned == (case == "aligned")
                delta += u[k] * part if applies else gradients[1 + k]
        out.append(gradients[0] + delta)
    return torch.stack(out)


@pytest.mark.parametrize("case", ["conflict", "aligned"])
@pytest.mark.parametrize("present", [[True] * 3, [True, False, True], [False, True, True]])
def test_the_weights_give_the_formula(case: str, present: list[bool]) -> None:
    conflicts = 0
    for seed in range(40):
        g = seeded(seed)
        rows = torch.randn(9, 1 + NAMES, 4, generator=g, dtype=torch.float64)
        rows[:, 1:] *= torch.tensor(present).double()[:, None]
        facts = step(torch.rand(3, generator=g).tolist(), present, (0.1 + 0.9 * torch.rand(3, generator=g)).tolist(), 9)
        weights = OnlyWhere(case)(gram(rows), facts)
        found = (weights[..., None] * rows).sum(1)
        torch.testing.assert_close(found, literal(case, rows, facts), rtol=1e-9, atol=1e-9)
        conflicts += int((gram(rows)[:, 1:, 1:] < 0).sum())
    assert conflicts > 200


def vectors(case: str) -> Tensor:
    """Gradients of which all pairs, and each with the sum of the others, are aligned or in conflict."""
    g = seeded(1)
    base = torch.rand(6, 1 + NAMES, 5, generator=g, dtype=torch.float64) + 0.1  # all entries positive
    if case == "conflict":  # (−1, 1, …): corners of a simplex
        corners = torch.eye(NAMES, 5, dtype=torch.float64) - 1 / NAMES
        base[:, 1:] = corners + 0.01 * torch.rand(6, NAMES, 5, generator=g, dtype=torch.float64)
    return base


@pytest.mark.parametrize("case", ["conflict", "aligned"])
def test_it_is_regrad_where_all_pairs_are_in_the_case_and_a_sum_where_none_is(case: str) -> None:
    facts = step([0.2, 0.7, 0.5], [True] * 3, [0.3, 0.6, 0.9], 6)
    here, elsewhere = vectors(case), vectors("aligned" if case == "conflict" else "conflict")
    for rows, sign in ((vectors("aligned"), 1), (vectors("conflict"), -1)):
        dots = gram(rows)[:, 1:, 1:][:, ~torch.eye(NAMES, dtype=torch.bool)]
        assert (sign * dots > 0).all()
    rule = OnlyWhere(case)
    torch.testing.assert_close(rule(gram(here), facts), ReGrad()(gram(here), facts))
    torch.testing.assert_close(rule(gram(elsewhere), facts), Sum()(gram(elsewhere), facts).double())


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ValueError, match="case: expected 'conflict' or 'aligned', found 'both'"):
        OnlyWhere("both")
