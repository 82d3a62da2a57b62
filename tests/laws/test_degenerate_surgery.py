"""Laws 4, 5 and 9 of gradient surgery where gradients, losses and batches are degenerate."""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd.aggregation import UPGradWeighting

from balancekit import Branches, MinNorm, MMPareto, PCGrad, Rebalancer, ReGrad, Rule, Sum, from_torchjd
from balancekit.modulation import modulate, scale_gradients, scale_updates
from balancekit.surgery import Surgery
from tests import degenerate
from tests.degenerate import BROKEN, DTYPES, FINITE, filled, laid
from tests.models import Toy, gradients

some = settings(max_examples=5, deadline=None)
RULES = [Sum(), ReGrad(), ReGrad(margin=0.1), MMPareto(), PCGrad(), MinNorm(), from_torchjd(UPGradWeighting())]
EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: repr(rule).partition("Weighting")[0])
PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])
SHAPES = ((2, 3, 2, 2), (5,))
WEIGHT = 0.3
WIDE = (torch.float64, torch.float32, torch.bfloat16)  # whose exponents reach 1e30 and 1e-30


def bits(x: Tensor) -> Tensor:
    return x.detach().contiguous().reshape(-1).view(torch.uint8)


class Given(NamedTuple):
    """Losses whose gradients are given: ``rows[tensor][r]`` is the gradient of loss r; 0 is the total, 1 + m the m-th.

    Every loss reaches the tensor "rest", which has no branch. None: this loss does not reach this tensor.
    """

    tensors: nn.ParameterDict
    rows: dict[str, list[Tensor | None]]
    present: list[str]
    per: str
    options: dict[str, Any]
    said: str

    def __repr__(self) -> str:
        return f"Given({self.said}, per={self.per}, {self.options}, present={self.present})"

    def branches(self, names: Sequence[str], tensors: int | None = None) -> Branches:
        return Branches(self.tensors, {n: [k for k in self.tensors if k.startswith(n)][:tensors] for n in names})

    def names(self) -> list[str]:
        return sorted({key.partition("_")[0] for key in self.tensors} - {"rest"})

    def loss(self, r: int) -> Tensor:
        reached = [(rows[r] * self.tensors[key]).sum() for key, rows in self.rows.items() if rows[r] is not None]
        return torch.stack(reached).sum()

    def backward(
        self,
        rule: Rule,
        *,
        names: Sequence[str] = (),
        losses: float = 1.0,
        gradient: float = 1.0,
        before: dict[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Surgery]:
        """The gradients, added to those from `before`, and what the hook saw; with branches in the order of `names`."""
        names = names or self.names()
        options = dict(self.options)
        if "proxy" in options:
            options["proxy"] = self.branches(names, 1)
        balancer = Rebalancer(self.branches(names), rule, weight=WEIGHT, per=self.per, **options)
        seen: list[Surgery] = []
        balancer.register_step_hook(seen.append)
        unimodal = {n: self.loss(1 + self.names().index(n)) * losses for n in names if n in self.present}
        for key, p in self.tensors.items():
            p.grad = None if before is None else before[key].clone()
        (balancer(self.loss(0) * losses, unimodal, confidence=dict.fromkeys(names, 0.5)) * gradient).backward()
        (surgery,) = seen
        return {key: p.grad.clone() for key, p in self.tensors.items()}, surgery

    def terms(self, rule: Rule, key: str, surgery: Surgery) -> Tensor:
        """What each row is to add to the gradient of a tensor, in float64; the absent ones add nothing."""
        names = self.names()
        weights = torch.ones(1 + len(names), dtype=torch.float64)
        if key != "rest":
            granules = (surgery.step.owner == names.index(key.partition("_")[0])).nonzero()
            if len(granules):  # none, where only a total reaches the branch that the rule does not weigh
                weights = surgery.weights[granules[0, 0]].double()
            weights[0] = weights[0] if rule.uses_total else 1.0
        there = [r for r, row in enumerate(self.rows[key]) if row is not None]
        there = [r for r in there if r == 0 or names[r - 1] in self.present]
        return torch.stack([self.rows[key][r].double() * weights[r] * (WEIGHT if r else 1.0) for r in there])


@st.composite
def cases(draw: st.DrawFn, rule: Rule, kinds: Sequence[str] = FINITE, dtypes: Sequence[torch.dtype] = DTYPES) -> Given:
    """Up to eight modalities, late or coupled, that tie (all losses are 0) or do not, some absent."""
    count = draw(degenerate.counts)
    count = min(count, 4) if isinstance(rule, PCGrad) or "torchjd" in repr(rule) else count  # they take long
    kind, dtype, layout = draw(st.sampled_from(kinds)), draw(st.sampled_from(dtypes)), draw(degenerate.layouts)
    seed, coupled, tied = draw(degenerate.seeds), draw(st.booleans()), draw(st.booleans())
    per = draw(st.sampled_from(("tensor", "branch", "model")))
    choices = {"tensor": [{}, {"low_memory": True}], "model": [{}, {"every": 2}, {"proxy": True}]}
    options = draw(st.sampled_from(choices.get(per, choices["tensor"] + choices["model"])))
    names = [f"m{m}" for m in range(count)]
    shapes = {f"{n}_{t}": shape for n in names for t, shape in enumerate(SHAPES[: 1 if per == "tensor" else 2])}
    shapes["rest"] = (4,)
    tensors, rows = nn.ParameterDict(), {}
    for i, (key, shape) in enumerate(shapes.items()):
        start = filled("zero" if tied else "plain", *shape, seed=seed + i, dtype=dtype)
        tensors[key] = nn.Parameter(laid(start, "channels last"))
        found = [laid(row, layout) for row in filled(kind, 1 + count, *shape, seed=seed + 99 * i, dtype=dtype)]
        reached = (coupled or key == "rest" or r in (0, 1 + names.index(key[:2])) for r in range(1 + count))
        rows[key] = [row if here else None for row, here in zip(found, reached, strict=True)]
    present = draw(st.sampled_from([names, names, names[1:] or names, names[:1]]))
    said = f"{count} modalities, {kind}, {dtype}, {layout}, seed {seed}, coupled={coupled}, tied={tied}"
    return Given(tensors, rows, present, per, options, said)


# --------------------------------------------------------------------------------------------------------------- law 4


@EVERY_RULE
@some
@given(st.data())
def test_losses_times_a_power_of_two_leave_the_weights_bit_for_bit(rule: Rule, data: st.DataObject) -> None:
    case, c = data.draw(cases(rule, dtypes=WIDE)), 2.0 ** data.draw(st.integers(0, 10))
    expected, surgery = case.backward(rule)
    for times in ({"losses": c}, {"gradient": c}):
        found, scaled = case.backward(rule, **times)
        assert torch.equal(scaled.weights, surgery.weights)
        assert all(torch.equal(found[key], expected[key] * c) for key in expected)


@EVERY_RULE
@some
@given(st.data())
def test_relabelling_the_branches_changes_no_gradient(rule: Rule, data: st.DataObject) -> None:
    case = data.draw(cases(rule, dtypes=[torch.float64]))
    expected, surgery = case.backward(rule)
    found, _ = case.backward(rule, names=data.draw(st.permutations(case.names())))
    for key, gradient in expected.items():
        size = case.terms(rule, key, surgery).abs().sum(0)
        assert ((found[key] - gradient).abs() <= 1e-9 * size.max()).all()


@EVERY_RULE
@some
@given(st.data())
def test_a_gradient_that_is_not_finite_is_not_lost(rule: Rule, data: st.DataObject) -> None:
    case = data.draw(cases(rule, BROKEN))
    found, _ = case.backward(rule)
    for key, gradient in found.items():
        present = [r for r in range(1 + len(case.names())) if r == 0 or case.names()[r - 1] in case.present]
        for row in (case.rows[key][r] for r in present):
            assert row is None or not gradient[~row.isfinite()].isfinite().any()


@st.composite
def speeds(draw: st.DrawFn) -> list[float]:
    count = draw(degenerate.counts)
    values = st.sampled_from([-torch.inf, 0.0, 1e-30, torch.inf])
    return draw(st.lists(values, min_size=count, max_size=count))


@settings(max_examples=40, deadline=None)
@given(speeds(), degenerate.dtypes)
def test_a_modality_is_fast_if_no_other_is_faster(values: list[float], dtype: torch.dtype) -> None:
    """Ties are fast together, infinite ones too. In late fusion the weight of a fast one is its confidence."""
    model = nn.ParameterDict({f"m{i}": nn.Parameter(torch.ones(2, dtype=dtype)) for i in range(len(values))})
    balancer = Rebalancer(Branches(model, {name: name for name in model}), ReGrad())
    losses = {name: p.sum() for name, p in model.items()}
    speed = {name: torch.tensor(value, dtype=torch.float64) for name, value in zip(model, values, strict=True)}
    balancer(None, losses, confidence=dict.fromkeys(model, 0.5), speed=speed).backward()
    expected = [1.0 if any(other > value for other in values) else 0.5 for value in values]
    assert [p.grad[0].item() for p in model.values()] == expected


@PATHS
@pytest.mark.parametrize("fact", ["confidence", "speed"])
def test_a_fact_that_is_not_a_number_reaches_the_gradient(coupled: bool, fact: str) -> None:
    model = Toy(2, coupled=coupled)
    total, losses = model(torch.ones(2, 3, 3).double(), torch.ones(3, 1).double())
    Rebalancer(model.branches(), ReGrad())(total, losses, **{fact: {"m0": torch.nan, "m1": 1.0}}).backward()
    assert not torch.cat([p.grad.flatten() for p in model.encoders["m0"].parameters()]).isfinite().any()


@EVERY_RULE
@pytest.mark.parametrize("exponent", [-100, 100])
def test_large_tensors_keep_their_weights_at_any_scale(rule: Rule, exponent: int) -> None:
    """Above some size the rows of a tensor are read where they lie, and not stacked."""
    found = []
    for c in (1.0, 2.0**exponent):
        generator = torch.Generator().manual_seed(0)
        model = nn.ParameterDict({name: nn.Parameter(torch.zeros(20_000)) for name in "ab"})
        rows = [[c * torch.rand(20_000, generator=generator) for _ in model] for _ in range(3)]
        total, a, b = (sum((g * p).sum() for g, p in zip(each, model.values(), strict=True)) for each in rows)
        Rebalancer(Branches(model, {"a": "a", "b": "b"}), rule)(total, {"a": a, "b": b}).backward()
        found.append(torch.cat([p.grad / c for p in model.values()]))
    assert torch.equal(*found)


def test_more_modalities_than_a_rule_can_weigh_are_refused_by_number() -> None:
    model = Toy(7, coupled=False)
    total, losses = model(torch.ones(7, 2, 3).double(), torch.ones(2, 1).double())
    with pytest.raises(ValueError, match=r"at most 7 rows.*found 8"):
        Rebalancer(model.branches(), PCGrad())(total, losses).backward()


# --------------------------------------------------------------------------------------------------------------- law 5


@EVERY_RULE
@some
@given(st.data())
def test_each_tensor_gets_the_weighted_sum_of_its_rows(rule: Rule, data: st.DataObject) -> None:
    case = data.draw(cases(rule))
    found, surgery = case.backward(rule)
    assert surgery.weights.isfinite().all()
    for key, gradient in found.items():
        terms, kind = case.terms(rule, key, surgery), torch.finfo(gradient.dtype)
        size = terms.abs().sum(0)
        near = (gradient.double() - terms.sum(0)).abs() <= 8 * kind.eps * size + 8 * kind.smallest_normal
        assert (near | (size > kind.max / 4)).all()  # beyond, float16 may overflow


@EVERY_RULE
@some
@given(st.data())
def test_grad_accumulates_bit_for_bit(rule: Rule, data: st.DataObject) -> None:
    case = data.draw(cases(rule, FINITE + BROKEN))
    alone, _ = case.backward(rule)
    before = {k: torch.empty_like(g).copy_(filled("plain", *g.shape, seed=7)) for k, g in alone.items()}
    found, _ = case.backward(rule, before=before)
    for key in found:
        torch.testing.assert_close(found[key], before[key] + alone[key], rtol=0, atol=0, equal_nan=True)


@EVERY_RULE
@some
@given(st.data())
def test_an_absent_modality_adds_nothing_to_any_branch(rule: Rule, data: st.DataObject) -> None:
    """Its own branch is due the total's gradient, as if the total were the only loss."""
    case = data.draw(cases(rule, dtypes=[torch.float64]))
    found, surgery = case.backward(rule)
    absent = [m for m, name in enumerate(case.names()) if name not in case.present]
    assert not surgery.weights[:, [1 + m for m in absent]].any()
    for m in absent:
        for key in (key for key in case.rows if key.startswith(f"m{m}")):
            if case.per != "model" and case.rows[key].count(None) == len(case.names()) - 1:  # late: the total is left
                factor = rule.gamma if isinstance(rule, MMPareto) else 1.0
                expected = factor * case.rows[key][0]
                torch.testing.assert_close(found[key], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [-0.0, 1e-42, 3e38, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", [ReGrad(), MMPareto()], ids=["total untouched", "total weighed"])
def test_the_value_is_the_total_bit_for_bit(rule: Rule, dtype: torch.dtype, value: float) -> None:
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(2, dtype=dtype))})
    balancer = Rebalancer(Branches(model, {"a": "a"}), rule)
    leaf = torch.tensor(value, dtype=torch.float64).to(dtype).requires_grad_()
    for total in (leaf, leaf.detach(), leaf.clone(), leaf.expand(3)[1]):
        loss = balancer(total, {"a": model["a"].sum()})
        assert torch.equal(bits(loss), bits(total))
        loss.backward()
        assert model["a"].grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_sum_equals_an_ordinary_backward(data: st.DataObject) -> None:
    """On every parameter, for every batch; what is not finite there is not finite here, and nothing else."""
    count, coupled = data.draw(degenerate.counts), data.draw(st.booleans())
    kind, dtype = data.draw(st.sampled_from(FINITE + BROKEN)), data.draw(degenerate.dtypes)
    size, seed, layout = data.draw(degenerate.batches), data.draw(degenerate.seeds), data.draw(degenerate.layouts)
    weight, per = data.draw(st.sampled_from((0.0, 0.3, 1.0))), data.draw(st.sampled_from(("tensor", "branch", "model")))
    model = Toy(count, coupled=coupled, dtype=dtype)
    choices = [{}, {"rest": "sum"}] if per == "tensor" else [{}, {"every": 2}]
    choices += [] if per == "model" else [{"low_memory": True}]
    choices += [] if per == "tensor" else [{"proxy": Branches(model, {n: f"encoders.{n}.2" for n in model.names})}]
    choices += [] if per == "model" or coupled else [{"independent": True}]
    balancer = Rebalancer(model.branches(), Sum(), weight=weight, per=per, **data.draw(st.sampled_from(choices)))
    x = filled(kind, count, size, 3, seed=seed, dtype=dtype, layout=layout)
    total, losses = model(x, filled("plain", size, 1, seed=seed + 1, dtype=dtype))
    losses = dict(list(losses.items())[data.draw(st.integers(0, count - 1)) :])
    balancer(total, losses).backward(retain_graph=True)
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    (total + weight * sum(losses.values())).backward()
    for gradient, p in zip(found, model.parameters(), strict=True):
        assert (gradient is None) == (p.grad is None)
        if gradient is not None:
            fine = p.grad.isfinite()
            assert torch.equal(gradient.isfinite(), fine)
            error, size = (gradient - p.grad).double()[fine].abs(), p.grad.double()[fine].abs()
            assert not fine.any() or error.max() <= 64 * torch.finfo(dtype).eps * size.max()


@EVERY_RULE
@PATHS
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_batch_gives_the_gradient_of_an_ordinary_backward_which_is_zero(
    rule: Rule, coupled: bool, dtype: torch.dtype
) -> None:
    model = Toy(3, coupled=coupled, dtype=dtype)
    total, losses = model(torch.zeros(3, 0, 3, dtype=dtype), torch.zeros(0, 1, dtype=dtype))
    loss = Rebalancer(model.branches(), rule)(total, losses, confidence=dict.fromkeys(losses, 0.5))
    assert loss.isnan()
    loss.backward(retain_graph=True)
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    (total + sum(losses.values())).backward()
    for gradient, p in zip(found, model.parameters(), strict=True):
        assert (gradient is None) == (p.grad is None)
        assert gradient is None or not (gradient.any() or p.grad.any())


@EVERY_RULE
@PATHS
@some
@given(degenerate.finite, degenerate.seeds)
def test_a_batch_of_one_is_a_batch_of_its_copies(rule: Rule, coupled: bool, kind: str, seed: int) -> None:
    found = []
    for copies in (1, 4):
        model = Toy(3, coupled=coupled)
        x = filled(kind if kind != "huge" else "plain", 3, 1, 3, seed=seed, dtype=torch.float64)
        total, losses = model(x.repeat(1, copies, 1), torch.ones(copies, 1).double())
        Rebalancer(model.branches(), rule, weight=WEIGHT)(total, losses).backward()
        found.append(gradients(model))
    for one, many in zip(*found, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-9, atol=1e-12)


@EVERY_RULE
@PATHS
@pytest.mark.parametrize("option", ["none", "low_memory", "every", "proxy"])
def test_no_graph_survives_the_backward(rule: Rule, coupled: bool, option: str) -> None:
    alive: list[weakref.ref] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            alive.append(weakref.ref(ctx))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    model = Toy(2, coupled=coupled)
    proxy = Branches(model, {name: f"encoders.{name}.2" for name in model.names})
    options = {"none": {}, "low_memory": {"low_memory": True}, "every": {"every": 2}, "proxy": {"proxy": proxy}}[option]
    balancer = Rebalancer(model.branches(), rule, per="branch", **options)
    for bad in (1.0, torch.nan):
        total, losses = model(Watched.apply(torch.ones(2, 1, 3).double().requires_grad_()), torch.ones(1, 1).double())
        loss = balancer(total * bad, losses)
        loss.backward()
        del total, losses, loss
    assert [ref() for ref in alive] == [None, None]


# --------------------------------------------------------------------------------------------------------------- law 9


@EVERY_RULE
@PATHS
@pytest.mark.parametrize("per", ["tensor", "branch"])
@pytest.mark.parametrize("k", [0.0, 2.0**-40, torch.inf])
def test_a_feature_scaled_before_surgery_is_a_branch_scaled_after_it(
    rule: Rule, coupled: bool, per: str, k: float
) -> None:
    """All rows of the branch have the factor, so no rule sees it; the rest of the model does not either."""
    found = []
    for before in (True, False):
        model = Toy(3, coupled=coupled)
        branches = model.branches()
        x = filled("plain", 3, 5, 3, seed=1, dtype=torch.float64)
        with branches.capture() as features:
            total, losses = model(x, torch.ones(5, 1).double())
        loss = Rebalancer(branches, rule, weight=WEIGHT, per=per)(total, losses)
        if before:
            modulate(features, {"m1": k}, total)
        loss.backward()
        if not before:
            scale_gradients(branches, {"m1": k})
        found.append(gradients(model))
    for here, there in zip(*found, strict=True):
        assert torch.equal(here.isfinite(), there.isfinite())
        torch.testing.assert_close(here[here.isfinite()], there[there.isfinite()], rtol=1e-12, atol=0)


@EVERY_RULE
@PATHS
def test_a_feature_is_scaled_through_the_loss_that_backward_is_called_on(rule: Rule, coupled: bool) -> None:
    model = Toy(2, coupled=coupled)
    branches = model.branches()
    with branches.capture() as features:
        total, losses = model(torch.ones(2, 3, 3).double(), torch.ones(3, 1).double())
    loss = Rebalancer(branches, rule)(total, losses)
    modulate(features, {"m0": 0.0}, loss)
    loss.backward()
    assert not any(p.grad.any() for p in model.encoders["m0"].parameters())
    assert all(p.grad.any() for p in model.encoders["m1"].parameters())


class Chain:
    """Features, loss, surgery, unscale, noise, clip, update: the whole order, in float32."""

    def __init__(self, rule: Rule, coupled: bool, scale: float) -> None:
        self.model = Toy(2, coupled=coupled, dtype=torch.float32)
        self.branches = self.model.branches()
        self.balancer = Rebalancer(self.branches, rule, weight=WEIGHT)
        self.optimizer = torch.optim.AdamW(self.branches.param_groups(lr=1e-2))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def step(self, x: Tensor, bad: float = 1.0) -> None:
        self.optimizer.zero_grad()
        with self.branches.capture() as features:
            total, losses = self.model(x, torch.ones(x.shape[1], 1))
        modulate(features, {"m0": 0.5}, total)
        self.scaler.scale(self.balancer(total, losses | {"m0": losses["m0"] * bad})).backward()
        self.scaler.unscale_(self.optimizer)
        scale_gradients(self.branches, {"m1": 0.5}, noise=True, generator=torch.Generator().manual_seed(0))
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        scale_updates(self.optimizer, {"m1": 0.25})
        self.scaler.step(self.optimizer)
        self.scaler.update()


def inputs(kind: str, seed: int = 0) -> Tensor:
    return filled(kind, 2, 4, 3, seed=seed).clamp(-1e3, 1e3)  # so that the losses are finite


@EVERY_RULE
@PATHS
@pytest.mark.parametrize("kind", ["zero", "opposed", "tiny"])
def test_the_whole_chain_does_not_see_the_scale_of_the_loss(rule: Rule, coupled: bool, kind: str) -> None:
    plain, scaled = (Chain(rule, coupled, scale) for scale in (1.0, 2.0**16))
    for seed in range(2):
        plain.step(inputs(kind, seed))
        scaled.step(inputs(kind, seed))
    for a, b in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        assert torch.equal(a, b)


@EVERY_RULE
@PATHS
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_step_of_the_chain_that_is_not_finite_leaves_no_trace(rule: Rule, coupled: bool, bad: float) -> None:
    found = []
    for skipped in (True, False):
        chain = Chain(rule, coupled, 2.0**16)
        chain.step(inputs("plain"))
        if skipped:
            before = [p.detach().clone() for p in chain.model.parameters()]
            chain.step(inputs("plain", 1), bad)
            assert all(torch.equal(p, q) for p, q in zip(chain.model.parameters(), before, strict=True))
            assert chain.scaler.get_scale() == 2.0**15
        chain.step(inputs("plain", 2))
        found.append([p.detach() for p in chain.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
