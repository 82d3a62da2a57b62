"""Laws 4 (rule), 5 (rebalancer) and 8 (all rooms) of gradient surgery."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from balancekit import Branches, Rebalancer, ReGrad, Step, Sum
from balancekit.surgery import regrad_weights
from tests.compiling import fullgraph
from tests.models import Toy, batches, gradients

NO_RATIO = math.pi / 30  # gradients of integers have cosines of 0.1, and at the margin itself rounding decides
RULES = [Sum(), ReGrad(), ReGrad(margin=NO_RATIO)]


class TotalToo(Sum):
    """Like Sum, but by the path of rules that weigh the total's row."""

    uses_total = True


class Half:
    """A rule that weighs every row by one half, the total's too."""

    uses_total = True

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        return torch.full_like(gram[..., 0], 0.5)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Step]:
    """Gradient rows "g r d" and a step, with exact zeros, duplicates, opposites and ties among them."""
    m, g = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = torch.randint(-2, 3, (g, 1 + m, 3), generator=generator).double()
    if draw(st.booleans()):
        rows = rows + torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    present = torch.rand(m, generator=generator) < 0.8
    rows[:, 1:][:, ~present] = 0
    losses = torch.randint(0, 3, (m,), generator=generator).double() * present
    speed = (-losses).where(present, torch.tensor(-torch.inf))
    confidence = torch.rand(m, generator=generator, dtype=torch.float64) * 0.99 + 0.01
    owner = torch.randint(0, m, (g,), generator=generator)
    return rows, Step(losses, confidence, speed, present, owner, torch.ones(g, dtype=torch.float64))


@pytest.mark.parametrize("rule", RULES, ids=repr)
class TestRule:
    @settings(max_examples=60, deadline=None)
    @given(cases(), st.integers(-20, 20))
    def test_a_power_of_two_leaves_the_weights_bit_for_bit(self, rule: ReGrad, case: tuple, exponent: int) -> None:
        rows, step = case
        gram, c = rows @ rows.mT, 2.0**exponent
        scaled = step._replace(losses=step.losses * c, speed=step.speed * c)
        assert torch.equal(rule(gram, step), rule(gram * c * c, scaled))

    @settings(max_examples=60, deadline=None)
    @given(cases(), st.floats(1e-6, 1e6))
    def test_a_common_scale_leaves_the_weights(self, rule: ReGrad, case: tuple, c: float) -> None:
        rows, step = case
        rows = rows.round()  # integers: no inner product is zero by rounding alone
        gram = rows @ rows.mT
        scaled = step._replace(losses=step.losses * c, speed=step.speed * c)
        torch.testing.assert_close(rule(gram, step), rule(gram * (c * c), scaled), rtol=1e-9, atol=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(cases(), st.randoms(use_true_random=False))
    def test_relabelling_modalities_relabels_weights(self, rule: ReGrad, case: tuple, random: object) -> None:
        rows, step = case
        rows = rows.round()
        m = len(step.losses)
        order = list(range(m))
        random.shuffle(order)
        index = torch.tensor(order)
        inverse = torch.argsort(index)
        with_total = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + index])
        moved = Step(*(field[index] for field in step[:4]), owner=inverse[step.owner], units=step.units)
        permuted = rows[:, with_total]
        expected = rule(rows @ rows.mT, step)[:, with_total]
        torch.testing.assert_close(rule(permuted @ permuted.mT, moved), expected, rtol=1e-12, atol=1e-12)

    @settings(max_examples=30, deadline=None)
    @given(cases())
    def test_all_granules_at_once(self, rule: ReGrad, case: tuple) -> None:
        rows, step = case
        gram = rows @ rows.mT
        together = rule(gram, step)
        assert together.shape == rows.shape[:2]
        for i in range(len(gram)):
            alone = rule(gram[i : i + 1], step._replace(owner=step.owner[i : i + 1], units=step.units[i : i + 1]))
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_regrad_never_slows_a_slow_branch_and_keeps_the_sum_of_the_others(case: tuple) -> None:
    rows, step = case
    rows = rows.round()
    rows[:, 0] = 0
    weights = ReGrad()(rows @ rows.mT, step)
    assert (weights >= 0).all()
    delta = (weights.unsqueeze(1) @ rows).squeeze(1)
    fastest = step.speed.max()
    for g, owner in enumerate(step.owner.tolist()):
        own = rows[g, 1 + owner]
        if not (step.present[owner] and step.speed[owner] == fastest):
            assert delta[g] @ own >= own @ own - 1e-9
        else:
            s = rows[g, 1:].sum(0) - own
            if own @ s <= 0:
                torch.testing.assert_close(delta[g] @ s, s @ s, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e-8, 1e20])
def test_regrad_at_tiny_and_huge_gradients(scale: float) -> None:
    model = Toy(3, coupled=True, dtype=torch.float64)
    ((x, y),) = batches(1, 3)
    balancer = Rebalancer(model.branches(), ReGrad())
    total, losses = model(x, y)
    balancer(total, losses).backward()
    expected = gradients(model)
    model.zero_grad()
    total, losses = model(x, y)
    (balancer(total, losses) * scale).backward()
    for found, reference in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(found / scale, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_others_that_cancel_leave_the_fast_branch_its_own_gradient(sign: float) -> None:
    """s is 0 up to rounding: Δ is s + u g of the fast branch, on either side of zero."""
    g = torch.tensor([[sign, 0.0, 0.0], [1e-4, 1.0, 0.3], [0.0, -1.0, -0.3]])
    fast, u = torch.tensor([True, False, False]), torch.tensor([0.5, 1.0, 1.0])
    weights = regrad_weights((g @ g.T)[None], u, fast, torch.tensor([0]))[0]
    torch.testing.assert_close(weights @ g, g[1] + g[2] + 0.5 * g[0], rtol=1e-3, atol=1e-6)


def test_a_slow_gradient_that_underflows_counts_as_zero() -> None:
    g = torch.tensor([[1e-26, 0.0], [1.0, 0.0]])
    fast, u = torch.tensor([False, True]), torch.tensor([1.0, 0.5])
    weights = regrad_weights((g @ g.T)[None], u, fast, torch.tensor([0]))[0]
    assert weights.tolist() == [1.0, 0.5]


# ---------------------------------------------------------------------------------------------------------------- law 5

PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


def step_of(coupled: bool, rule: object = None, modalities: int = 3, **options: object) -> tuple:
    model = Toy(modalities, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad() if rule is None else rule, **options)
    ((x, y),) = batches(1, modalities)
    return model, balancer, *model(x, y)


@PATHS
def test_the_value_is_the_total_bit_for_bit(coupled: bool) -> None:
    _, balancer, total, losses = step_of(coupled)
    loss = balancer(total, losses)
    assert torch.equal(loss, total)
    assert loss.shape == ()
    loss /= 3  # not a view of the total
    negative_zero = total * -0.0
    assert torch.signbit(balancer(negative_zero, losses)).item()


@PATHS
def test_the_value_without_total_is_the_weighted_sum(coupled: bool) -> None:
    model, balancer, _, losses = step_of(coupled, Sum(), weight=0.5)
    loss = balancer(None, losses)
    torch.testing.assert_close(loss, 0.5 * sum(losses.values()))
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    ((x, y),) = batches(1, 3)
    (0.5 * sum(model(x, y)[1].values())).backward()
    for a, b in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(a, b)


@PATHS
@pytest.mark.parametrize("rule", [Sum(), TotalToo()], ids=["Sum", "TotalToo"])
@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
def test_sum_equals_an_ordinary_backward_on_every_parameter(coupled: bool, rule: object, per: str) -> None:
    model, balancer, total, losses = step_of(coupled, rule, weight=0.3, per=per)
    balancer(total, losses).backward()
    found = gradients(model)
    model.zero_grad()
    ((x, y),) = batches(1, 3)
    total, losses = model(x, y)
    (total + 0.3 * sum(losses.values())).backward()
    for a, b in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_a_rule_that_weighs_the_total() -> None:
    model, balancer, total, losses = step_of(True, Half(), rest="total")
    rest = torch.autograd.grad(total, model.rest(), retain_graph=True, allow_unused=True)
    owned = [p for name in balancer.branches for p in balancer.branches[name]]
    whole = torch.autograd.grad(total + sum(losses.values()), owned, retain_graph=True)
    balancer(total, losses).backward()
    for parameter, gradient in zip(owned, whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 2)
    for parameter, gradient in zip(model.rest(), rest, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("rule", [ReGrad(), TotalToo()], ids=["ReGrad", "TotalToo"])
def test_rest_total_gives_other_parameters_exactly_the_totals_gradient(rule: object) -> None:
    model, balancer, total, losses = step_of(True, rule, rest="total")
    expected = torch.autograd.grad(total, model.rest(), retain_graph=True, allow_unused=True)
    assert any(g is None for g in expected)  # the auxiliary heads, which the total does not reach
    balancer(total, losses).backward()
    for parameter, gradient in zip(model.rest(), expected, strict=True):
        assert parameter.grad is None if gradient is None else torch.equal(parameter.grad, gradient)


def test_rest_sum_lets_auxiliary_heads_learn() -> None:
    model, balancer, total, losses = step_of(True, weight=0.3)
    expected = torch.autograd.grad(total + 0.3 * sum(losses.values()), model.rest(), retain_graph=True)
    balancer(total, losses).backward()
    for parameter, gradient in zip(model.rest(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-13, atol=1e-15)


@PATHS
def test_grad_accumulates(coupled: bool) -> None:
    model, balancer, total, losses = step_of(coupled)
    balancer(total, losses).backward()
    once = gradients(model)
    ((x, y),) = batches(1, 3)
    balancer(*model(x, y)).backward()
    for a, b in zip(gradients(model), once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=1e-13, atol=1e-15)


@PATHS
def test_scaled_and_joined_by_another_loss(coupled: bool) -> None:
    model, balancer, total, losses = step_of(coupled)
    penalty = sum(p.square().sum() for p in model.parameters())
    extra = torch.autograd.grad(penalty, list(model.parameters()))
    balancer(total, losses).backward(retain_graph=True)
    alone = gradients(model)
    model.zero_grad()
    penalty = sum(p.square().sum() for p in model.parameters())
    (0.5 * balancer(total, losses) + 0.1 * penalty).backward()
    for a, b, c in zip(gradients(model), alone, extra, strict=True):
        torch.testing.assert_close(a, 0.5 * b + 0.1 * c, rtol=1e-12, atol=1e-14)


@PATHS
def test_without_grad_mode_the_same_object_returns(coupled: bool) -> None:
    _, balancer, total, losses = step_of(coupled)
    with torch.no_grad():
        assert balancer(total, losses) is total
    with torch.inference_mode():
        assert balancer(total, losses) is total


@PATHS
def test_create_graph_raises(coupled: bool) -> None:
    model, balancer, total, losses = step_of(coupled)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(balancer(total, losses), list(model.parameters()), create_graph=True, allow_unused=True)


@PATHS
def test_no_graph_survives_the_backward(coupled: bool) -> None:
    model = Toy(3, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad())
    ((x, y),) = batches(1, 3)
    alive: list[weakref.ref] = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, tensor: Tensor) -> Tensor:
            alive.append(weakref.ref(ctx))
            return tensor.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient

    gc.disable()  # nothing may wait for the collector of cycles
    try:
        total, losses = model(Watch.apply(x.requires_grad_()), y)
        loss = balancer(total, losses)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        del total, losses, loss
        assert [ref() for ref in alive] == [None]
    finally:
        gc.enable()


@PATHS
def test_retain_graph_works_twice(coupled: bool) -> None:
    model, balancer, total, losses = step_of(coupled)
    loss = balancer(total, losses)
    loss.backward(retain_graph=True)
    once = gradients(model)
    loss.backward()
    for a, b in zip(gradients(model), once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=0, atol=0)


@PATHS
def test_an_absent_modality_is_never_fast_and_has_weight_zero(coupled: bool) -> None:
    model, balancer, total, losses = step_of(coupled)
    seen = []
    balancer.register_step_hook(seen.append)
    missing = min(losses, key=lambda name: losses[name].item())  # it would be the fastest
    del losses[missing]
    balancer(total, losses).backward()
    (surgery,) = seen
    index = model.names.index(missing)
    assert surgery.step.present.tolist() == [i != index for i in range(3)]
    assert (surgery.weights[:, 1 + index] == 0).all()
    assert surgery.step.speed[index] == -torch.inf
    rest = Rebalancer(model.branches(), Sum())
    model.zero_grad()
    ((x, y),) = batches(1, 3)
    total, losses = model(x, y)
    del losses[missing]
    loss = total + sum(losses.values())
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    rest(total, losses).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


def test_a_loss_that_misses_its_branch_is_named() -> None:
    model, balancer, total, losses = step_of(False)
    swapped = {"m0": losses["m1"], "m1": losses["m0"], "m2": losses["m2"]}
    with pytest.raises(ValueError, match=r"losses\['m0'\].*found only tensors of \['m1'\]"):
        balancer(total, swapped)
    for parameter in model.encoders["m0"].parameters():
        parameter.requires_grad_(False)
    ((x, y),) = batches(1, 3)
    with pytest.raises(ValueError, match=r"losses\['m0'\].*frozen"):
        balancer(*model(x, y))


@PATHS
def test_frozen_and_unfrozen_later(coupled: bool) -> None:
    model, balancer, *_ = step_of(coupled)
    ((x, y),) = batches(1, 3)
    frozen = model.encoders["m0"][0].weight.requires_grad_(False)
    balancer(*model(x, y)).backward()
    assert frozen.grad is None
    assert model.encoders["m0"][2].weight.grad is not None
    frozen.requires_grad_(True)
    balancer(*model(x, y)).backward()
    assert frozen.grad is not None


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
@PATHS
def test_a_bad_loss_reaches_grad(coupled: bool, per: str, bad: float) -> None:
    for position in range(3):
        model, balancer, total, losses = step_of(coupled, per=per)
        name = model.names[position]
        losses[name] = losses[name] * bad
        balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
        for parameter in model.encoders[name].parameters():
            assert not parameter.grad.isfinite().all()


def test_a_loss_scale_reaches_the_passes() -> None:
    """Losses times 1e-5 in float16: without the scale 2^16 inside the passes, a third of the gradient is 0."""
    reference, small = Toy(3, coupled=True), Toy(3, coupled=True, dtype=torch.float16)
    small.load_state_dict(reference.state_dict())
    reference.load_state_dict(small.state_dict())
    ((x, y),) = batches(1, 3, dtype=torch.float16)
    for model, scale in ((reference, 1.0), (small, 2.0**16)):
        data = (x, y) if model is small else (x.double(), y.double())
        total, losses = model(*data)
        losses = {name: loss.to(torch.promote_types(loss.dtype, torch.float32)) * 1e-5 for name, loss in losses.items()}
        total = total.to(torch.promote_types(total.dtype, torch.float32)) * 1e-5
        (Rebalancer(model.branches(), Sum())(total, losses) * scale).backward()
    for a, b in zip(small.parameters(), reference.parameters(), strict=True):
        error = (a.grad.double() / 2.0**16 - b.grad).norm() / b.grad.norm()
        assert error < 5e-3


def test_parameters_frozen_between_forward_and_backward() -> None:
    model, balancer, total, losses = step_of(True)
    loss = balancer(total, losses)
    model.encoders["m0"][0].weight.requires_grad_(False)
    loss.backward()
    assert model.encoders["m0"][0].weight.grad is None
    assert model.encoders["m1"][0].weight.grad is not None
    model, balancer, total, losses = step_of(True)
    model.heads["m0"].weight.requires_grad_(False)
    balancer(total, losses).backward()
    assert model.heads["m0"].weight.grad is None


def test_custom_functions_with_attributes_of_any_name() -> None:
    class Named(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            ctx.name, ctx.variable = "foo", x.detach()
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient

    model, balancer, total, losses = step_of(True)
    balancer(Named.apply(total), {name: Named.apply(loss) for name, loss in losses.items()}).backward()
    expected, (model, balancer, total, losses) = gradients(model), step_of(True)
    balancer(total, losses).backward()
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), expected, strict=True))


def test_the_losses_dtype_decides_ties() -> None:
    """Two float64 losses that float32 could not tell apart, beside a float32 total."""
    a, b = nn.Linear(1, 1, dtype=torch.float64), nn.Linear(1, 1, dtype=torch.float64)
    model = nn.ModuleDict({"a": a, "b": b})
    balancer = Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad())
    seen = []
    balancer.register_step_hook(seen.append)
    losses = {"a": a.weight.sum() * 0 + 1, "b": b.weight.sum() * 0 + (1 + 1e-9)}
    balancer((a.weight.sum() + b.weight.sum()).float(), losses, confidence={"a": 0.5, "b": 0.5}).backward()
    assert seen[0].weights[:, 1:].diagonal().tolist() == [0.5, 1.0]


class NoHostRead(TorchDispatchMode):
    """Fails on every operation that would make a GPU wait for the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        forbidden = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "masked_select", "unique")
        name = function._schema.name.removeprefix("aten::")
        assert name not in forbidden, name
        return function(*args, **(kwargs or {}))


@PATHS
@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
def test_no_host_synchronisation_on_the_step_path(coupled: bool, per: str) -> None:
    model = Toy(3, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad(margin=0.1), per=per)
    ((x, y),) = batches(1, 3)
    total, losses = model(x, y)
    with NoHostRead():
        balancer(total, losses, confidence={n: torch.rand(5) for n in losses}).backward()
    assert all(p.grad is not None for name in balancer.branches for p in balancer.branches[name])


# ---------------------------------------------------------------------------------------------------------------- law 8


@pytest.mark.compiles
def test_compiled_weights_equal_eager() -> None:
    compiled = fullgraph(regrad_weights)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        rows = torch.randn(6, 3, 5, generator=generator).to(dtype)
        arguments = rows @ rows.mT, torch.rand(3, generator=generator), torch.tensor([True, False, False])
        owner = torch.arange(6) % 3
        torch.testing.assert_close(compiled(*arguments, owner), regrad_weights(*arguments, owner), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@PATHS
def test_dtypes(coupled: bool, dtype: torch.dtype) -> None:
    model = Toy(3, coupled=coupled, dtype=dtype)
    ((x, y),) = batches(1, 3, dtype=dtype)
    Rebalancer(model.branches(), ReGrad())(*model(x, y)).backward()
    for parameter in [*model.encoders.parameters(), *model.joint.parameters()]:
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


@PATHS
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_copies_act_on_their_own_model(coupled: bool, clone: object) -> None:
    model, balancer, total, losses = step_of(coupled)
    model2, balancer2 = clone((model, balancer))
    balancer(total, losses).backward()
    assert all(p.grad is None for p in model2.parameters())
    ((x, y),) = batches(1, 3)
    balancer2(*model2(x, y)).backward()
    for a, b in zip(gradients(model), gradients(model2), strict=True):
        assert torch.equal(a, b)


def test_layouts_sparse_complex_and_channels_last() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(7, 4, sparse=True),
            "dense": nn.Embedding(7, 4),
            "conv": nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last),
        }
    )
    model.register_parameter("phase", nn.Parameter(torch.randn(4, dtype=torch.cfloat)))
    model["dense"].weight.data.copy_(model["table"].weight.data)
    index, image = torch.tensor([1, 2, 2]), torch.randn(3, 2, 3, 3).to(memory_format=torch.channels_last)
    grads = {}
    for kind in ("table", "dense"):
        model.zero_grad()
        words, pixels = model[kind](index), model["conv"](image).flatten(1)
        mixed = (words * pixels * model.phase.abs()).tanh()
        losses = {"words": (words + mixed).square().mean(), "pixels": (pixels - mixed).square().mean()}
        branches = Branches(model, {"words": [kind, "phase"], "pixels": "conv"})
        Rebalancer(branches, ReGrad())(mixed.sum(), losses).backward()
        assert model["conv"].weight.grad.isfinite().all()
        grads[kind] = [model[kind].weight.grad.to_dense(), model["conv"].weight.grad, model.phase.grad]
    for sparse, dense in zip(grads["table"], grads["dense"], strict=True):
        torch.testing.assert_close(sparse, dense)


def test_sparse_and_dense_gradients_of_one_tensor_add_up() -> None:
    torch.manual_seed(0)
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.Embedding(5, 3, sparse=sparse), "b": nn.Linear(3, 3)})
        words = model["a"](torch.tensor([0, 2]))
        mixed = model["b"](words)
        losses = {"a": words.square().sum() + model["a"].weight.square().sum(), "b": (mixed + words).square().sum()}
        Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad())(mixed.sum(), losses).backward()
        gradient = model["a"].weight.grad
        found.append(gradient.to_dense() if gradient.is_sparse else gradient)
    torch.testing.assert_close(*found)
