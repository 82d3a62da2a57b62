"""The engine equals a literal float64 loop on 500 drawn models: one pass per loss, then the rule on vectors."""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from balancekit import Rebalancer, ReGrad, Step
from tests import opaque
from tests.drawn import Drawn, draw
from tests.oracles import engine as oracle
from tests.oracles.regrad import regrad

SEEDS = 500
CHUNK = 50
VALUES = {
    "M": "2 3 4 5 6",
    "exchange": "none all bottom top apart ring",
    "trunk": "none shared frozen",
    "head": "none inside outside shared",
    "adapter": "none trained frozen",
    "inner": "none scale norm",
    "mix": "none apart mixed",
    "cut": "none zero",
    "compiled": "none apart mixed",
    "loss": "square entropy sum",
    "loss scale": "1.0 1e-06 1000000.0 0.0",
    "per": "tensor branch model",
    "rest": "sum total",
    "batches": "1 2",
}
FEATURES = {f"{name}={value}" for name, values in VALUES.items() for value in values.split()} | {
    *("gain", "gate", "alias", "twin", "expanded", "kept", "across", "direct", "late", "joint", "send", "checkpoint"),
    *("tied", "reused", "frozen", "frozen branch", "unused", "bias-free", "input grad", "absent", "no total"),
    *("uses total", "confidence", "speed", "ties", "factor", "one loss reaches a tensor that its own does not"),
}


class Leaning:
    """Row r gets ``(|g_r|² + <g_r, g_b>) / Σ|g|²`` on branch b, with the total among the rows."""

    uses_total = True

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        squares = gram.diagonal(dim1=-2, dim2=-1)
        own = gram[torch.arange(len(gram)), 1 + step.owner]
        whole = squares.sum(-1, keepdim=True)
        return torch.where(whole > 0, (squares + own) / whole, 0)


def leaning(rows: list[Tensor], branch: int) -> Tensor:
    """The same on vectors."""
    out, whole = torch.zeros_like(rows[0]), sum(float(torch.dot(row, row)) for row in rows)
    for row in rows:
        if whole > 0:
            out = out + (torch.dot(row, row) + torch.dot(row, rows[1 + branch])) / whole * row
    return out


@pytest.fixture(autouse=True, scope="module")
def _compiled_graphs_serve_several_passes() -> Iterator[None]:
    import torch._functorch.config as config

    before, config.donated_buffer = config.donated_buffer, False
    opaque.warm_up()
    yield
    config.donated_buffer = before


def mean(value: Tensor | float) -> float:
    return value.mean().item() if isinstance(value, Tensor) else value


def expected(drawn: Drawn, batch: tuple) -> tuple[dict[Tensor, Tensor], dict[Tensor, float]]:
    """The gradient of every trained tensor from one batch, by a forward of its own, and its measure."""
    total, losses, other, _ = drawn.model(*batch)
    losses = {name: losses[name] for name in drawn.present}
    branches = {name: [p for p in ps if p.requires_grad] for name, ps in drawn.branches.items()}
    others = drawn.others()
    every = [p for ps in branches.values() for p in ps] + others
    rows = oracle.rows_of(total if drawn.with_total else None, losses, list(branches), every, drawn.weight)
    rule = leaning
    if not drawn.uses_total:
        confidence = {name: mean(value) for name, value in (drawn.confidence or {}).items() if name in losses}
        speed = {name: mean(value) for name, value in (drawn.speed or losses).items()}
        if drawn.speed is None:
            speed = {name: -loss for name, loss in speed.items()}
        rule = regrad(list(branches), losses, confidence, speed)
    found = oracle.step(rows, branches, others, rule, uses_total=drawn.uses_total, per=drawn.per, rest=drawn.rest)
    sizes = oracle.largest(rows, branches, others, drawn.per)
    if drawn.factor is not None:
        (more,) = oracle.rows_of(other, {}, [], every, 1.0)
        found = {t: drawn.factor * gradient + more[t] for t, gradient in found.items()}
        sizes = {t: size + float(more[t].abs().max()) for t, size in sizes.items()}
    return found, sizes


def check(seed: int, **options: object) -> str:
    """Compare one drawn model with the loop; `options` are the Rebalancer's (proxy: all tensors). Returns the path."""
    drawn = draw(seed)
    if "proxy" in options:
        options["proxy"] = drawn.branches
    gradients: dict[Tensor, Tensor] = {}
    sizes: dict[Tensor, float] = {}
    for batch in drawn.batches:
        for mine, new in zip((gradients, sizes), expected(drawn, batch), strict=True):
            mine.update({t: mine[t] + value if t in mine else value for t, value in new.items()})
    rule = Leaning() if drawn.uses_total else ReGrad()
    balancer = Rebalancer(
        drawn.branches, rule, **{"weight": drawn.weight, "per": drawn.per, "rest": drawn.rest, **options}
    )
    paths = []
    balancer.register_step_hook(lambda surgery: paths.append(surgery.path))
    try:
        for batch in drawn.batches:
            total, losses, other, kept = drawn.model(*batch)
            losses = {name: losses[name] for name in drawn.present}
            total = total if drawn.with_total else None
            loss = balancer(total, losses, confidence=drawn.confidence, speed=drawn.speed)
            (loss if drawn.factor is None else drawn.factor * loss + other).backward()
            for seed_, vector, gradient in kept:
                assert torch.equal(gradient, seed_ * vector), "a gradient that its node keeps was written to"
        names = {p: name for name, p in drawn.model.named_parameters()}
        for tensor, gradient in gradients.items():
            found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            exact = torch.allclose(found, gradient, rtol=1e-10, atol=1e-10 * sizes[tensor])
            assert exact, f"{names.get(tensor, 'an input')}: expected {gradient}, found {found}"
        for parameter in drawn.model.parameters():
            assert parameter in gradients or parameter.grad is None, f"{names[parameter]} is frozen"
    except Exception as error:
        raise AssertionError(f"{drawn!r}\n{error}") from error
    assert len(paths) == len(drawn.batches)
    return paths[0]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_engine_equals_the_literal_loop(first: int) -> None:
    paths = Counter(check(seed) for seed in range(first, first + CHUNK))
    assert all(paths[path] >= 2 for path in ("collapse", "partial", "general")), paths


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_branch_by_branch_is_exact(first: int) -> None:
    seeds = [seed for seed in range(first, first + CHUNK) if draw(seed).per != "model"]
    paths = Counter(check(seed, low_memory=True) for seed in seeds[::6])
    assert paths["general"] > 0, paths


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_weights_known_before_the_passes_are_applied_exactly(first: int) -> None:
    """A proxy of all tensors measures what the engine measures; then one joint pass a branch applies the weights."""
    seeds = [seed for seed in range(first, first + CHUNK) if draw(seed).per != "tensor"]
    paths = Counter(check(seed, proxy=True) for seed in seeds[::6])
    assert paths["general"] > 0, paths


def test_asserted_independence_is_exact_where_it_holds() -> None:
    def holds(drawn: Drawn) -> bool:
        c = drawn.choices
        ours = c.head in ("none", "inside") and c.trunk != "shared" and not c.input_grad and not c.extras & {"across"}
        return drawn.is_late and ours and not drawn.uses_total and drawn.per != "model"

    seeds = [seed for seed in range(SEEDS) if holds(draw(seed))]
    assert len(seeds) >= 20
    assert {check(seed, independent=True) for seed in seeds} == {"collapse"}


def test_the_draw_covers_every_feature() -> None:
    counts = Counter(feature for seed in range(SEEDS) for feature in draw(seed).features())
    assert set(counts) == FEATURES
    assert min(counts.values()) >= 20, counts
