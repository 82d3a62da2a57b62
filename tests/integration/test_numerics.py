"""Ranges, dtypes and layouts: what the Gram matrices see, and what arrives in ``.grad``."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from balancekit import Branches, Rebalancer, ReGrad, Step, Sum
from tests.integration import literal
from tests.models import Toy, batches, gradients

PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])
PER = pytest.mark.parametrize("per", ["tensor", "branch", "model"])


def pair(a: Tensor, b: Tensor, **options: object) -> tuple[nn.ParameterDict, Rebalancer]:
    """Two branches of one tensor each."""
    model = nn.ParameterDict({"a": nn.Parameter(a), "b": nn.Parameter(b)})
    return model, Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad(), **options)


@PER
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["aligned", "conflicted"])
@pytest.mark.parametrize("autocast", [True, False])
def test_float16_rows_whose_squares_overflow(per: str, sign: float, autocast: bool) -> None:
    """70,000 entries of 1 and of ±256: float16 has no inner product of theirs."""
    half, double = (
        pair(torch.ones(70_000).to(t), torch.ones(70_000).to(t), per=per) for t in (torch.half, torch.double)
    )
    for model, balancer in (half, double):
        a, b = (model[name].to(torch.promote_types(model[name].dtype, torch.float32)) for name in ("a", "b"))
        losses = {"a": (a + sign * 256 * b).mean() * 70_000, "b": (256 * a + b).mean() * 70_000}
        if model is double[0]:
            expected = literal.by_hand(balancer, None, losses)
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            literal.join(balancer, None, losses).backward()
    for name, tensor in double[0].items():
        found = half[0][name].grad
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.double(), expected[tensor], rtol=1e-3, atol=0)


@PATHS
@PER
@pytest.mark.parametrize("exponent", [-80, 66], ids=["1e-24", "1e20"])
def test_tiny_and_huge_gradients_in_float32(coupled: bool, per: str, exponent: int) -> None:
    found = []
    for scale in (1.0, 2.0**exponent):
        model = Toy(3, coupled=coupled, dtype=torch.float32)
        ((x, y),) = batches(1, 3, dtype=torch.float32)
        (literal.join(Rebalancer(model.branches(), ReGrad(), per=per), *model(x, y)) * scale).backward()
        found.append([gradient / scale for gradient in gradients(model)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@PER
def test_tensors_of_unlike_scale(per: str) -> None:
    """One branch's gradients are 1e-12 of the other's."""
    model, balancer = pair(torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([0.5, 0.25]).double(), per=per)
    small = 1e-12 * model.a
    losses = {"a": small.sum() + model.b.prod() * small[0], "b": (model.b.square().sum() - small.prod() + small[1])}
    literal.step(balancer, None, losses, rtol=1e-10, atol=1e-24)


@PER
def test_a_complex_tensor_is_its_real_and_imaginary_part(per: str) -> None:
    """Re<a, b>: one complex tensor gives what a granule of two real ones gives."""
    generator = torch.Generator().manual_seed(0)
    start, x = (torch.randn(4, dtype=torch.cdouble, generator=generator) for _ in range(2))
    other = torch.randn(3, dtype=torch.float64, generator=generator)
    for flip in (1, -1):

        def losses_of(z: Tensor, w: Tensor, flip: int = flip) -> dict[str, Tensor]:
            mixed = (z * x).imag.sum() * w.sum()
            return {
                "a": z.abs().square().sum() + mixed,
                "b": flip * (z.conj() * x).imag.sum() + w.square().sum() * mixed,
            }

        one, balancer = pair(start.clone(), other.clone(), per=per)
        literal.join(balancer, None, losses_of(one.a, one.b)).backward()
        two = nn.ParameterDict({"re": start.real.clone(), "im": start.imag.clone(), "b": other.clone()})
        twin = Rebalancer(
            Branches(two, {"a": ["re", "im"], "b": "b"}), ReGrad(), per="branch" if per == "tensor" else per
        )
        literal.step(twin, None, losses_of(torch.complex(two.re, two.im), two.b))
        torch.testing.assert_close(one.a.grad, torch.complex(two.re.grad, two.im.grad), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(one.b.grad, two.b.grad, rtol=1e-12, atol=1e-13)


@PATHS
@PER
@pytest.mark.parametrize("rest", ["sum", "total"])
def test_none_is_not_zero(coupled: bool, per: str, rest: str) -> None:
    """What no loss reaches keeps no gradient, so that an optimizer's decay and momentum leave it alone."""
    model = Toy(2, coupled=coupled)
    model.encoders["m0"].register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    model.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    ((x, y),) = batches(1, 2)
    literal.step(Rebalancer(model.branches(), ReGrad(), per=per, rest=rest), *model(x, y))
    optimizer.step()
    for idle in (model.encoders["m0"].idle, model.spare):
        assert idle.grad is None
        assert idle.tolist() == [1.0, 1.0]


@PATHS
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_bad_total_keeps_its_value(coupled: bool, bad: float) -> None:
    """inf stays inf: nothing is subtracted from itself."""
    model = Toy(2, coupled=coupled)
    ((x, y),) = batches(1, 2)
    total, losses = model(x, y)
    loss = Rebalancer(model.branches(), ReGrad())(total.abs() + bad, losses)
    torch.testing.assert_close(loss.item(), bad, equal_nan=True)


@PER
def test_branches_of_unequal_size_and_rows_per_loss(per: str) -> None:
    """No row is a sum of losses, and a tensor that one loss alone reaches is no conflict."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"a": nn.Linear(7, 5), "b": nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5))}
    ).double()
    balancer = Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad(), per=per, weight=0.3)
    a = model["a"](torch.randn(4, 7).double())
    b = model["b"](torch.randn(4, 2).double())
    losses = {"a": a.square().mean(), "b": (b * a.tanh() - 1).square().mean()}  # b's branch: its own loss alone
    rows = {
        name: torch.autograd.grad(0.3 * loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        for name, loss in losses.items()
    }
    surgery = literal.step(balancer, (a + b).square().mean(), losses)
    if surgery.path == "general" and per == "model":
        squares = (surgery.gram.diagonal(dim1=-2, dim2=-1) * surgery.step.units.square()[:, None])[0, 1:]
        expected = [sum(g.square().sum() for g in row if g is not None) for row in rows.values()]
        torch.testing.assert_close(squares, torch.stack(expected))


Make = Callable[[], tuple[Tensor, Tensor]]
LAYOUTS: dict[str, Make] = {
    "transposed": lambda: (torch.arange(6.0).reshape(2, 3).double().t(), torch.ones(2).double()),
    "strided": lambda: (torch.arange(12.0).double()[::2], torch.arange(8.0).reshape(2, 4).double()[:, ::3]),
    "channels last": lambda: (
        torch.linspace(-1, 1, 48).double().reshape(2, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.ones(3).double(),
    ),
    "a scalar and nothing": lambda: (torch.tensor(2.0).double(), torch.ones(0).double()),
}


@PER
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, per: str) -> None:
    model, balancer = pair(*LAYOUTS[name](), per=per)
    a, b = model.a, model.b
    meet = (a.sum() + 1) * (b.sum() - 2)
    losses = {"a": (a.square() * torch.linspace(0, 1, a.numel()).reshape(a.shape)).sum() + meet}
    losses["b"] = b.tanh().sum() - 0.5 * meet
    literal.step(balancer, meet.square(), losses)


@PER
def test_rows_that_autograd_hands_out_expanded_or_twice(per: str) -> None:
    """``sum`` gives every loss a gradient of stride 0, and an identity gives two losses one and the same tensor."""
    model, balancer = pair(torch.ones(5).double(), torch.ones(5).double(), per=per)
    both = model.a + model.b
    losses = {"a": both.sum() * 2, "b": both.sum() * 3 - model.a.sum()}
    literal.step(balancer, both.sum(), losses)


@PATHS
def test_a_loss_scale_in_float16_without_a_total(coupled: bool) -> None:
    """Without a total the losses alone carry the scale."""
    found = []
    for scale in (1.0, 2.0**15):
        model = Toy(2, coupled=coupled, dtype=torch.float16)
        ((x, y),) = batches(1, 2, dtype=torch.float16)
        _, losses = model(x, y)
        losses = {
            name: loss.float() * 2.0**-15 * (1 / scale if scale > 1 else 2.0**15) for name, loss in losses.items()
        }
        (Rebalancer(model.branches(), Sum())(None, losses) * scale * (scale if scale > 1 else 1.0)).backward()
        found.append(gradients(model))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-5)


class Recorder(Sum):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Step]] = []

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        self.seen.append((gram, step))
        return super().__call__(gram, step)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_rule_sees_float32_or_wider_of_entries_up_to_one(dtype: torch.dtype) -> None:
    model = Toy(2, coupled=True, dtype=dtype)
    rule = Recorder()
    ((x, y),) = batches(1, 2, dtype=dtype)
    Rebalancer(model.branches(), rule)(*model(x, y)).backward()
    for gram, step in rule.seen:
        assert gram.dtype == step.losses.dtype == torch.promote_types(dtype, torch.float32)
        assert not gram.requires_grad
