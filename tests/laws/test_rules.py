"""Law 4 for every rule, by the suite that users run on their own; that the suite finds bad rules; rules' own laws."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting, UPGradWeighting

from balancekit import MinNorm, MMPareto, PCGrad, Rebalancer, ReGrad, Rule, Step, Sum, from_torchjd
from balancekit.surgery import min_norm_weights, mmpareto_weights, pcgrad_weights
from balancekit.testing import check_rule
from tests.compiling import fullgraph
from tests.models import Toy, batches, gradients

RULES = [Sum(), ReGrad(), ReGrad(margin=0.1), MMPareto(), MMPareto(gamma=1.0), PCGrad(), MinNorm()]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_rule_keeps_the_laws(rule: Rule) -> None:
    check_rule(rule)


@pytest.mark.parametrize("weighting", [UPGradWeighting(), AlignedMTLWeighting()], ids=lambda w: type(w).__name__)
def test_torchjd_keeps_the_laws_and_reads_the_host(weighting: Callable[[Tensor], Tensor]) -> None:
    rule = from_torchjd(weighting)
    check_rule(rule, host_reads=True, draws=4)
    with pytest.raises(AssertionError, match="law: nothing is read on the host"):
        check_rule(rule, modalities=(2,), draws=1)


# ------------------------------------------------------------------------------------------- the suite finds bad rules


def made(weigh: Callable[[Tensor, Step], Tensor], *, total: bool = False) -> Rule:
    class Made:
        uses_total = total

        def __call__(self, gram: Tensor, step: Step) -> Tensor:
            return weigh(gram, step)

    return Made()


def fair(gram: Tensor, step: Step) -> Tensor:
    """What a harmless rule returns."""
    return torch.cat([torch.ones_like(gram[:, :1, 0]), step.present.expand(len(gram), -1).to(gram.dtype)], -1)


def squares(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=-2, dim2=-1)


def trace(gram: Tensor) -> Tensor:
    return squares(gram).sum(-1)[:, None, None]


def by_lengths(gram: Tensor, step: Step) -> Tensor:
    lengths = squares(gram).sqrt()
    return lengths / lengths.sum(-1, keepdim=True)


def over_granules(gram: Tensor, step: Step) -> Tensor:
    longest = squares(gram).amax()
    return fair(gram, step) * squares(gram).sum(-1, keepdim=True) / torch.where(longest > 0, longest, 1)


def by_position(gram: Tensor, step: Step) -> Tensor:
    return fair(gram, step) * torch.arange(1, len(gram) + 1, device=gram.device).unsqueeze(-1) / 8


def within_branch_by_position(gram: Tensor, step: Step) -> Tensor:
    earlier = (step.owner.unsqueeze(-1) == step.owner).to(gram.dtype).tril().sum(-1, keepdim=True)
    return fair(gram, step) * earlier


def against_losses(gram: Tensor, step: Step) -> Tensor:
    square, losses = squares(gram)[:, 1:] * step.units.square().unsqueeze(-1), step.losses.square().sum()
    return fair(gram, step) / (1 + square.sum(-1, keepdim=True) / torch.where(losses > 0, losses, 1))


def by_eigenvalues(gram: Tensor, step: Step) -> Tensor:
    return fair(gram, step) + 0 * torch.linalg.eigvalsh(gram / (1 + trace(gram))).sum()


def read(gram: Tensor, step: Step) -> Tensor:
    return fair(gram, step) if gram.sum() > 0 else fair(gram, step).clone()


def masked(gram: Tensor, step: Step) -> Tensor:
    weights = fair(gram, step)
    weights[squares(gram) == 0] = torch.zeros_like(gram[0, 0, :1])
    return weights


def solved(gram: Tensor, step: Step) -> Tensor:
    regular = gram / torch.where(trace(gram) > 0, trace(gram), 1) + torch.eye(gram.shape[-1]).to(gram)
    return fair(gram, step) + 0 * torch.linalg.solve(regular, fair(gram, step)).sum()


def printing(gram: Tensor, step: Step) -> Tensor:
    torch._dynamo.graph_break()
    return fair(gram, step)


BAD = [
    ("shape", made(lambda gram, step: fair(gram, step)[:, 1:]), 'weights are "g r"'),
    ("dtype", made(lambda gram, step: fair(gram, step).double()), 'weights are "g r"'),
    ("zero-by-zero", made(by_lengths), 'weights are "g r", finite'),
    ("fails", made(lambda gram, step: 1 / 0), "ZeroDivisionError"),
    ("product", made(lambda gram, step: fair(gram, step) * squares(gram)), "losses times a power of two"),
    ("units", made(lambda gram, step: fair(gram, step) * step.units[:, None]), "losses times a power of two"),
    ("mantissa", made(lambda gram, step: fair(gram, step) * squares(gram).frexp()[0]), "losses times any factor"),
    ("first", made(lambda gram, step: fair(gram, step) * torch.arange(gram.shape[-1])), "relabelling the modalities"),
    ("fastest", made(lambda gram, step: fair(gram, step) * (squares(gram).cumsum(-1) > 0)), "relabelling"),
    ("all-granules", made(lambda gram, step: fair(gram, step) * len(gram)), "the granules of a branch have the same"),
    ("position", made(by_position), "the granules of a branch have the same"),
    ("inner-position", made(within_branch_by_position), "granules in another order"),
    ("absent", made(lambda gram, step: torch.ones_like(gram[..., 0])), "an absent modality has weight 0"),
    ("losses", made(against_losses), "losses"),
    ("eigenvalues", made(by_eigenvalues), "a gradient that is not finite"),
    ("reads", made(read), "nothing is read on the host"),
    ("masked", made(masked), "nothing is read on the host"),
    (
        "host-tensor",
        made(lambda gram, step: fair(gram, step) * torch.ones(gram.shape[-1])),
        "on the device of the Gram",
    ),
    ("solve", made(solved), "nothing is read on the host"),
]


@pytest.mark.parametrize(("rule", "law"), [pytest.param(rule, law, id=name) for name, rule, law in BAD])
def test_the_suite_names_the_law_that_a_bad_rule_breaks(rule: Rule, law: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_rule(rule)
    message = str(caught.value)
    assert law in message
    for shown in ("law: ", "rule: ", "gradients", "present = ", "owner = "):
        assert shown in message


def test_the_suite_finds_weights_that_follow_a_lone_gradient() -> None:
    """Against the losses a gradient has a scale, and a rule may use it only where that gradient is computed."""

    def alone(gram: Tensor, step: Step) -> Tensor:
        square = squares(gram).sum(-1, keepdim=True) * step.units.square().unsqueeze(-1)
        losses = step.losses.square().sum()
        ratio = square / torch.where(losses > 0, losses, 1)
        return fair(gram, step) / (1 + torch.where(losses > 0, ratio, 0))

    with pytest.raises(AssertionError, match="law: a granule that one loss alone reaches"):
        check_rule(made(alone))


def test_the_suite_lets_a_rule_read_the_host_if_told() -> None:
    check_rule(made(read), host_reads=True)


def test_the_suite_lets_a_branch_couple_its_granules() -> None:
    def shares(gram: Tensor, step: Step) -> Tensor:
        lengths = (squares(gram).sum(-1) * step.units.square()).sqrt()
        same = (step.owner.unsqueeze(-1) == step.owner).to(gram.dtype)
        whole = (same * lengths).sum(-1)
        return fair(gram, step) * (lengths / torch.where(whole > 0, whole, 1)).unsqueeze(-1)

    check_rule(made(shares))


@pytest.mark.compiles
def test_the_suite_asks_for_one_graph() -> None:
    check_rule(made(fair), modalities=(2,), compiles=True)
    with pytest.raises(AssertionError, match="law: compiled in one graph"):
        check_rule(made(printing), modalities=(2,), draws=2, compiles=True)


# ------------------------------------------------------------------------------------------------- what each rule does


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Tensor, Step]:
    """Gradient rows "g r d" of up to three modalities, and a step with units."""
    m, g = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = torch.randint(-2, 3, (g, 1 + m, 3), generator=generator).double()
    if draw(st.booleans()):
        rows = rows + torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    units = 10.0 ** torch.randint(-3, 4, (g,), generator=generator).double()
    owner = torch.randint(0, m, (g,), generator=generator)
    return rows, Step(*torch.zeros(3, m, dtype=torch.float64), torch.ones(m, dtype=torch.bool), owner, units)


def combine(rule: Rule, rows: Tensor, step: Step) -> Tensor:
    return (rule(rows @ rows.mT, step).unsqueeze(1) @ rows).squeeze(1)


@settings(max_examples=60, deadline=None)
@given(drawn())
def test_min_norm_lowers_every_loss(case: tuple) -> None:
    rows, step = case
    weights = MinNorm()(rows @ rows.mT, step)
    shortest = combine(MinNorm(), rows, step)
    there = rows.norm(dim=-1) > 0
    assert (weights >= 0).all()
    assert (weights[~there] == 0).all()
    torch.testing.assert_close(weights.sum(-1), there.any(-1).double())
    gain = (rows @ shortest.unsqueeze(-1)).squeeze(-1)
    assert (gain >= shortest.square().sum(-1, keepdim=True) - 1e-9)[there].all()


def test_min_norm_is_fair_to_equal_and_to_surrounding_rows() -> None:
    same = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(min_norm_weights((same @ same.T)[None]), torch.tensor([[1.0, 1.0, 1.0, 0.0]]) / 3)
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    torch.testing.assert_close(min_norm_weights((cross @ cross.T)[None]), torch.full((1, 4), 0.25))


@settings(max_examples=60, deadline=None)
@given(drawn())
def test_pcgrad_of_two_never_conflicts_and_without_conflict_is_the_sum(case: tuple) -> None:
    rows, step = case
    two = rows[:, :2]
    weights = pcgrad_weights(two @ two.mT)
    gain = (two @ (weights.unsqueeze(1) @ two).mT).squeeze(-1)
    assert (gain >= -1e-9).all()
    agreeing = rows.abs()
    torch.testing.assert_close(combine(PCGrad(), agreeing, step), agreeing.sum(1))


@settings(max_examples=60, deadline=None)
@given(drawn())
def test_mmpareto_serves_both_and_is_as_long_as_the_sum(case: tuple) -> None:
    rows, step = case
    real = rows * step.units[:, None, None]
    found = combine(MMPareto(gamma=1.0), rows, step) * step.units.unsqueeze(-1)
    a, b = real[:, 0], real[:, 1:].sum(1)
    left = found.norm(dim=-1) > 1e-6 * real.norm(dim=(1, 2))
    assert (found.norm(dim=-1) >= (1 - 1e-9) * (a + b).norm(dim=-1))[left].all()
    for owner in step.owner.unique():
        mine = step.owner == owner
        agree = (a * b)[mine].sum() > 1e-9 * (a[mine].norm() * b[mine].norm())
        if agree or not a[mine].any() or not b[mine].any():
            torch.testing.assert_close(found[mine], (a + b)[mine], rtol=1e-9, atol=1e-9)
        elif mine.sum() == 1:
            assert ((found * a).sum(-1) >= -1e-6 * a.norm() ** 2)[mine & left].all()
            assert ((found * b).sum(-1) >= -1e-6 * a.norm() ** 2)[mine & left].all()


def test_mmpareto_takes_the_direction_of_the_branch_and_the_length_of_the_granule() -> None:
    """One granule agrees, the other conflicts and decides; its unit is what makes it large."""
    rows = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 1.0]]], dtype=torch.float64)
    step = Step(*torch.zeros(3, 1), torch.ones(1, dtype=torch.bool), torch.tensor([0, 0]), torch.tensor([1.0, 10.0]))
    weights = MMPareto(gamma=1.0)(rows @ rows.mT, step)
    a, b, dot = 101.0, 201.0, -99.0
    k = torch.tensor([b - dot, a - dot], dtype=torch.float64) / (a + b - 2 * dot)
    torch.testing.assert_close(weights[0], 2 * k)  # 2 k_0 a + 2 k_1 b is 2 a here: already as long as a + b
    g = 2 * k @ rows[1]
    torch.testing.assert_close(weights[1], 2 * k * max(1.0, 1.0 / g.norm().item()))
    swapped = MMPareto(gamma=1.0)(rows @ rows.mT, step._replace(units=step.units.flip(0)))
    torch.testing.assert_close(swapped, torch.ones(2, 2, dtype=torch.float64))


def test_mmpareto_keeps_a_total_that_alone_reaches_a_granule_of_a_conflicted_branch() -> None:
    """The loss is 1e-12 of the total: k_0 underflows when squared, and the total must still be whole."""
    rows = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [-1e-12, 1e-12]]])
    step = Step(*torch.zeros(3, 1), torch.ones(1, dtype=torch.bool), torch.tensor([0, 0]), torch.ones(2))
    weights = MMPareto(gamma=1.0)(rows @ rows.mT, step)
    torch.testing.assert_close(weights[0, 0], torch.tensor(1.0))


@pytest.mark.parametrize("rule", [PCGrad(), MinNorm(), MMPareto()], ids=repr)
@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_tiny_and_huge_gradients(rule: Rule, scale: float) -> None:
    model = Toy(3, coupled=True)
    balancer = Rebalancer(model.branches(), rule)
    ((x, y),) = batches(1, 3)
    balancer(*model(x, y)).backward()
    expected = gradients(model)
    model.zero_grad()
    (balancer(*model(x, y)) * scale).backward()
    for found, wanted in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(found / scale, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "rule",
    [PCGrad(), MinNorm(), MMPareto(), from_torchjd(UPGradWeighting())],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes_and_copies(rule: Rule, dtype: torch.dtype) -> None:
    found = []
    for copied in (rule, copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        model = Toy(3, coupled=True, dtype=dtype)
        ((x, y),) = batches(1, 3, dtype=dtype)
        Rebalancer(model.branches(), copied)(*model(x, y)).backward()
        found.append(gradients(model))
    for first, second, third in zip(*found, strict=True):
        assert first.dtype == dtype
        assert first.isfinite().all()
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.compiles
def test_compiled_weights_equal_eager() -> None:
    rows = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram, owner, units = rows @ rows.mT, torch.arange(6) % 2, torch.logspace(-2, 2, 6, dtype=torch.float64)
    for function, arguments in (
        (pcgrad_weights, (gram,)),
        (min_norm_weights, (gram,)),
        (mmpareto_weights, (gram, owner, units)),
    ):
        found = fullgraph(function)(*arguments)
        torch.testing.assert_close(found, function(*arguments), rtol=1e-10, atol=1e-10)
