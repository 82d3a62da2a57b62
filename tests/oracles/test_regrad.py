"""ReGrad against its literal re-derivation: the worked tables, Eq. 5, and 200 drawn models by every path."""

import pytest
import torch

from balancekit import Rebalancer, ReGrad, Step
from tests.models import Toy, batches
from tests.oracles import regrad as oracle

F64 = torch.float64


def delta(rows: torch.Tensor, confidence: list[float], fast: int, branch: int) -> torch.Tensor:
    m = len(rows)
    speed = torch.zeros(m, dtype=F64)
    speed[fast] = 1.0
    padded = torch.cat([torch.zeros_like(rows[:1]), rows])
    step = Step(
        -speed,
        torch.tensor(confidence, dtype=F64),
        speed,
        torch.ones(m, dtype=torch.bool),
        torch.tensor([branch]),
        torch.ones(1),
    )
    weights = ReGrad()((padded @ padded.T)[None], step)[0]
    return weights @ padded


@pytest.mark.parametrize(
    ("g_j", "fast", "expected"),
    [
        ((1.0, 1.0), 1, (1.5, 0.0)),  # b1
        ((1.0, 1.0), 0, (1.25, 1.25)),  # c1
        ((-1.0, 1.0), 1, (1.0, 0.5)),  # b2
        ((-1.0, 1.0), 0, (-0.75, 1.25)),  # c2
    ],
)
@pytest.mark.parametrize("branch", [0, 1])
def test_two_modalities_by_hand(g_j: tuple, fast: int, expected: tuple, branch: int) -> None:
    rows = torch.tensor([(1.0, 0.0), g_j], dtype=F64)
    assert delta(rows, [0.5, 0.5], fast, branch).tolist() == list(expected)


@pytest.mark.parametrize(
    ("confidence", "fast", "expected"),
    [
        ((0.5, 0.5, 0.5), 0, ((0.5, 2), (0.75, 1.75), (-0.25, 1.75))),
        ((0.5, 0.5, 0.5), 1, ((1.5, 0.5), (0, 1.5), (-0.25, 1.75))),
        ((0.5, 0.5, 0.5), 2, ((1.5, 0.5), (0.75, 1.75), (1.7, 1.6))),
        ((0.8, 0.5, 0.25), 0, ((0.8, 2), (1.15, 1.65), (-0.1, 1.9))),
        ((0.8, 0.5, 0.25), 1, ((1.5, 0.25), (0, 1.5), (-0.1, 1.9))),
        ((0.8, 0.5, 0.25), 2, ((1.5, 0.25), (1.15, 1.65), (1.85, 1.3))),
    ],
)
def test_three_modalities_by_hand(confidence: tuple, fast: int, expected: tuple) -> None:
    rows = torch.tensor([(1.0, 0.0), (1.0, 1.0), (-1.0, 1.0)], dtype=F64)
    for branch in range(3):
        found = delta(rows, list(confidence), fast, branch)
        torch.testing.assert_close(found, torch.tensor(expected[branch], dtype=F64), rtol=0, atol=4e-16)


@pytest.mark.parametrize("fast", [0, 1])
@pytest.mark.parametrize("branch", [0, 1])
def test_the_rule_at_two_modalities_is_equation_five(fast: int, branch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        rows = torch.randn(2, 3, dtype=F64, generator=generator)
        u = torch.rand(2, dtype=F64, generator=generator).tolist()
        expected = oracle.eq5(rows[0], rows[1], u[0], u[1], j_is_faster=fast == 1)
        torch.testing.assert_close(delta(rows, u, fast, branch), expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(oracle.corrected(list(rows), u, branch, {fast}), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
@pytest.mark.parametrize("coupled", [True, False])
def test_the_rebalancer_on_200_drawn_models(per: str, coupled: bool) -> None:
    paths = set()
    for seed in range(200):
        m, rest = 2 + seed % 4, ("sum", "total")[seed // 4 % 2]
        model = Toy(m, coupled=coupled, seed=seed)
        branches = model.branches()
        balancer = Rebalancer(branches, ReGrad(), weight=0.3, per=per, rest=rest)
        balancer.register_step_hook(lambda surgery: paths.add(surgery.path))
        ((x, y),) = batches(1, m, seed=seed)
        total, losses = model(x, y)
        if seed % 3 == 0 and m > 2:
            del losses[f"m{seed % m}"]
        confidence = torch.rand(m, dtype=F64, generator=torch.Generator().manual_seed(seed))
        confidence = {f"m{i}": float(c) for i, c in enumerate(confidence)}
        expected = oracle.step(
            total,
            losses,
            {name: list(parameters) for name, parameters in branches.items()},
            model.rest(),
            confidence=confidence,
            speed={name: -loss.item() for name, loss in losses.items()},
            weight=0.3,
            per=per,
            rest=rest,
        )
        balancer(total, losses, confidence=confidence).backward()
        for parameter, gradient in expected.items():
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-10)
    if per == "model":
        assert paths == {"general"}
    else:  # an absent modality leaves coupled tensors that one loss reaches
        assert paths == ({"general", "partial"} if coupled else {"collapse"})
