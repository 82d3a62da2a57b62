"""What is in force around the call and around the backward changes nothing: devices, modes, dtypes, threads."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from balancekit import Rebalancer, ReGrad, Step
from tests.integration import literal
from tests.models import Toy, batches

PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    """Uninitialised memory is filled with NaN here, too."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def anomaly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        with torch.autograd.detect_anomaly():
            yield


CONTEXTS: dict[str, Callable[[], AbstractContextManager]] = {
    "meta device": lambda: torch.device("meta"),
    "default device": default_device,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "deterministic": deterministic,
    "anomaly": anomaly,
    "saved tensors on the CPU": torch.autograd.graph.save_on_cpu,
    "one thread": lambda: torch.autograd.set_multithreading_enabled(False),
}


def losses_of(coupled: bool, name: str = "") -> tuple[Toy, Rebalancer, Tensor, dict[str, Tensor]]:
    """With the name of an autocast, the forward runs under it: then the graph's own backward is the same without."""
    model = Toy(3, coupled=coupled, dtype=torch.float32)
    ((x, y),) = batches(1, 3, dtype=torch.float32)
    with CONTEXTS[name]() if "autocast" in name else nullcontext():
        return model, Rebalancer(model.branches(), ReGrad(), weight=0.3), *model(x, y)


def plain(coupled: bool, name: str = "") -> Toy:
    model, balancer, total, losses = losses_of(coupled, name)
    if "autocast" in name:
        literal.join(balancer, total, losses).backward()
    else:
        literal.step(balancer, total, losses, rtol=3e-7, atol=3e-7)
    return model


def assert_equal(model: Toy, reference: Toy) -> None:
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or (a.grad.dtype == b.grad.dtype and torch.equal(a.grad, b.grad))


@PATHS
@pytest.mark.parametrize("name", CONTEXTS)
def test_around_the_backward(coupled: bool, name: str) -> None:
    model, balancer, total, losses = losses_of(coupled, name)
    loss = literal.join(balancer, total, losses)
    with CONTEXTS[name]():
        loss.backward()
    assert_equal(model, plain(coupled, name))


@PATHS
@pytest.mark.parametrize("name", [name for name in CONTEXTS if name != "no_grad"])
def test_around_the_call_and_the_backward(coupled: bool, name: str) -> None:
    model, balancer, total, losses = losses_of(coupled, name)
    with CONTEXTS[name]():
        literal.join(balancer, total, losses).backward()
    assert_equal(model, plain(coupled, name))


@PATHS
@pytest.mark.parametrize("name", [name for name in CONTEXTS if name != "no_grad"])
def test_around_the_call_alone(coupled: bool, name: str) -> None:
    model, balancer, total, losses = losses_of(coupled, name)
    with CONTEXTS[name]():
        loss = literal.join(balancer, total, losses)
    loss.backward()
    assert_equal(model, plain(coupled, name))


@PATHS
def test_in_another_thread(coupled: bool) -> None:
    """As on an accelerator, whose backward does not see this thread's modes."""
    model, balancer, total, losses = losses_of(coupled)
    with torch.no_grad(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        with torch.enable_grad():
            loss = literal.join(balancer, total, losses)
        worker = threading.Thread(target=loss.backward)
        worker.start()
        worker.join()
    assert_equal(model, plain(coupled))


@PATHS
def test_facts_are_exact_under_a_narrow_default_dtype(coupled: bool) -> None:
    """Speeds that float16 cannot tell apart; a fact that is a python number is no tensor of the default dtype."""
    _, balancer, total, losses = losses_of(coupled)
    seen = []
    balancer.register_step_hook(seen.append)
    with default_dtype(torch.float16):
        speed = {"m0": 1.0, "m1": 1.0001, "m2": 0.0}
        balancer(total, losses, confidence=dict.fromkeys(losses, 0.1), speed=speed).backward()
    step = seen[0].step
    assert step.confidence.tolist() == [torch.tensor(0.1, dtype=torch.float32).item()] * 3
    assert step.speed[1] > step.speed[0]


class NaN:
    """A rule that has gone wrong."""

    uses_total = False

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        return torch.full_like(gram[..., 0], torch.nan)


@PATHS
def test_anomaly_mode_names_the_part_that_made_the_nan(coupled: bool) -> None:
    model, _, total, losses = losses_of(coupled)
    balancer = Rebalancer(model.branches(), NaN())
    with anomaly(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error detected in")  # the traceback of the forward
        loss = balancer(total, losses)
        name = type(loss.grad_fn).__name__
        with pytest.raises(RuntimeError, match=f"Function '{name}' returned nan values"):
            loss.backward()
    assert type(loss.grad_fn)._forward_cls.__module__.startswith("balancekit.surgery")
