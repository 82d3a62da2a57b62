"""One loss, any loop: scaler, accumulation, clipping, Lightning. Parameters equal the plain loop's."""

import logging
import warnings

import pytest
import torch
from torch import nn

from balancekit import Rebalancer, ReGrad
from tests.models import Toy, batches
from tests.oracles import regrad as oracle

M = 3
COUPLED = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


def gradients_by_hand(model: Toy, x: torch.Tensor, y: torch.Tensor) -> dict[nn.Parameter, torch.Tensor]:
    total, losses = model(x, y)
    return oracle.step(
        total,
        losses,
        {name: list(parameters) for name, parameters in model.branches().items()},
        [p for p in model.rest() if model.coupled or not any(p is q for q in model.heads.parameters())],
        confidence=dict.fromkeys(losses, 0.5),
        speed={name: -loss.item() for name, loss in losses.items()},
        weight=0.3,
        per="tensor",
        rest="sum",
    )


def plain_loop(coupled: bool, steps: int = 6, accumulate: int = 1, clip: float | None = None) -> Toy:
    """The reference: surgery by the literal oracle, gradients written by hand."""
    model = Toy(M, coupled=coupled)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for index, (x, y) in enumerate(batches(steps, M)):
        for parameter, gradient in gradients_by_hand(model, x, y).items():
            gradient = gradient / accumulate
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if index % accumulate == accumulate - 1:
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return model


def assert_same(model: nn.Module, reference: nn.Module) -> None:
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def loss_of(model: Toy, balancer: Rebalancer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    total, losses = model(x, y)
    return balancer(total, losses, confidence=dict.fromkeys(losses, 0.5))


@COUPLED
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_plain_loop(coupled: bool, accumulate: int, set_to_none: bool) -> None:
    model = Toy(M, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for index, (x, y) in enumerate(batches(6, M)):
        (loss_of(model, balancer, x, y) / accumulate).backward()
        if index % accumulate == accumulate - 1:
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    assert_same(model, plain_loop(coupled, accumulate=accumulate))


@COUPLED
def test_grad_scaler_then_clip(coupled: bool) -> None:
    model = Toy(M, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for x, y in batches(6, M):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, balancer, x, y)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert_same(model, plain_loop(coupled, clip=1.0))


@COUPLED
def test_a_bad_step_is_skipped_by_the_scaler(coupled: bool) -> None:
    model = Toy(M, coupled=coupled)
    balancer = Rebalancer(model.branches(), ReGrad())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    before = [parameter.clone() for parameter in model.parameters()]
    ((x, y),) = batches(1, M)
    total, losses = model(x, y)
    losses["m1"] = losses["m1"] * torch.inf
    scaler.scale(balancer(total, losses)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**15
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@COUPLED
def test_autocast(coupled: bool) -> None:
    """Under bfloat16 autocast the rule still computes in float32: the result is that of the same losses without it."""
    results = []
    for autocast_backward in (False, True):
        model = Toy(M, coupled=coupled, dtype=torch.float32)
        balancer = Rebalancer(model.branches(), ReGrad())
        ((x, y),) = batches(1, M, dtype=torch.float32)
        seen = []
        balancer.register_step_hook(seen.append)
        with torch.autocast("cpu", torch.bfloat16):
            total, losses = model(x, y)
            loss = balancer(total, losses)
            if autocast_backward:
                loss.backward()
        if not autocast_backward:
            loss.backward()
        assert seen[0].gram.dtype == seen[0].weights.dtype == torch.float32
        results.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@COUPLED
def test_lightning_automatic_optimisation(coupled: bool, tmp_path: object) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Toy(M, coupled=coupled)
            self.balancer = Rebalancer(self.model.branches(), ReGrad(), weight=0.3)

        def training_step(self, batch: tuple, index: int) -> torch.Tensor:
            return loss_of(self.model, self.balancer, *batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    module = Module()
    loader = torch.utils.data.DataLoader(list(batches(6, M)), batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightning's own advice about workers and loggers
        trainer = lightning.Trainer(
            max_epochs=1,
            accumulate_grad_batches=3,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=tmp_path,
        )
        trainer.fit(module, loader)
    assert_same(module.model, plain_loop(coupled, accumulate=3, clip=1.0))


def test_reentrant_checkpointing_is_refused_by_name() -> None:
    model = Toy(2, coupled=True)
    balancer = Rebalancer(model.branches(), ReGrad())
    ((x, y),) = batches(1, 2)
    x.requires_grad_()
    checkpoint = torch.utils.checkpoint.checkpoint
    total, losses = checkpoint(lambda *args: model(*args), x, y, use_reentrant=False)
    balancer(total, losses).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    balancer(*model(x, y)).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    hidden = checkpoint(lambda t: model.encoders["m0"](t), x[0], use_reentrant=True)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        balancer(hidden.sum(), {"m0": hidden.square().mean()})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_models_and_the_donated_buffers_error() -> None:
    torch._dynamo.reset()
    reference, model = Toy(2, coupled=True, dtype=torch.float32), Toy(2, coupled=True, dtype=torch.float32)
    ((x, y),) = batches(1, 2, dtype=torch.float32)
    Rebalancer(reference.branches(), ReGrad())(*reference(x, y)).backward()
    balancer = Rebalancer(model.branches(), ReGrad())
    seen = []
    balancer.register_step_hook(lambda surgery: seen.append(surgery.path))
    compiled = torch.compile(model, backend="aot_eager")
    balancer(*compiled(x, y)).backward()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert seen == ["general"]

    torch._dynamo.reset()
    compiled = torch.compile(model)
    total, losses = compiled(x, y)
    (total + sum(losses.values())).backward()  # an ordinary backward first: its buffers are given away
    loss = balancer(*compiled(x, y))
    with pytest.raises(RuntimeError, match=r"donated_buffer = False"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo hides it, which fails where warnings are errors
def test_a_whole_step_compiles_with_one_break() -> None:
    torch._dynamo.reset()
    model = Toy(2, coupled=True)
    balancer = Rebalancer(model.branches(), ReGrad())
    ((x, y),) = batches(1, 2)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return balancer(*model(x, y)) * 1.0

    loss = torch.compile(step, backend="eager")(x, y)
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    step(x, y).backward()
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
