"""Parameters that are spread over ranks: FSDP2 and tensor parallelism, on two gloo ranks."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from balancekit import Rebalancer, ReGrad
from tests.integration import literal
from tests.integration import ranks as gloo
from tests.models import Toy, batches

RANKS = 2
CLOSE = 1e-10  # float64


def pair(coupled: bool) -> tuple[Toy, Toy]:
    models = Toy(2, coupled=coupled, dtype=torch.float64), Toy(2, coupled=coupled, dtype=torch.float64)
    for model in models:
        model.heads.requires_grad_(coupled)
    return models


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    ((pair),) = batches(1, 2, size=size, dtype=torch.float64)
    return pair


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def difference(model: Toy, expected: dict[Tensor, Tensor], reference: Toy) -> float:
    """The largest difference of the gradients, relative to the larger of 1 and the entry."""
    worst = 0.0
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        if b in expected:
            assert a.grad is not None
            gap = (full(a.grad) - expected[b]).abs() / expected[b].abs().clamp(min=1)
            worst = max(worst, gap.max().item())
    return worst


def sharded(coupled: bool, groups: str, grad: bool = False, rank: int = 0, **options: object) -> dict[str, Any]:
    """One step under FSDP2, beside the mean of the ranks' loops (or with sync=True, the large batch)."""
    model, reference = pair(coupled)
    mesh = init_device_mesh("cpu", (RANKS,))
    if groups == "encoders":
        for encoder in model.encoders.values():
            fully_shard(encoder, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3, **options)
    paths: list[str] = []
    balancer.register_step_hook(lambda surgery: paths.append(surgery.path))
    x, y = batch(4 * RANKS)
    part = slice(4 * rank, 4 * rank + 4)
    mine = x[:, part].clone().requires_grad_(grad), y[part]
    literal.join(balancer, *model(*mine)).backward()
    whole = Rebalancer(reference.branches(), ReGrad(), weight=0.3)
    if options.get("sync"):
        expected = literal.by_hand(whole, *reference(x, y))
    else:
        expected = literal.by_hand(whole, *reference(*(part.detach() for part in mine)))
        for gradient in expected.values():
            dist.all_reduce(gradient)
            gradient /= RANKS
    return {"path": paths[0], "difference": difference(model, expected, reference)}


def parallel(coupled: bool, rank: int, **options: object) -> dict[str, Any]:
    """One step with column- and row-wise sharded encoders; every rank has the whole batch."""
    model, reference = pair(coupled)
    mesh = init_device_mesh("cpu", (RANKS,))
    for encoder in model.encoders.values():
        parallelize_module(encoder, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3, **options)
    paths: list[str] = []
    balancer.register_step_hook(lambda surgery: paths.append(surgery.path))
    x, y = batch()
    literal.join(balancer, *model(x, y)).backward()
    whole = Rebalancer(reference.branches(), ReGrad(), weight=0.3, **options)
    expected = literal.by_hand(whole, *reference(x, y))
    return {"path": paths[0], "difference": difference(model, expected, reference)}


BODIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "general, root": lambda rank: sharded(True, "root", rank=rank),
    "general, root, input": lambda rank: sharded(True, "root", grad=True, rank=rank),
    "general, encoders": lambda rank: sharded(True, "encoders", rank=rank),
    "general, encoders, input": lambda rank: sharded(True, "encoders", grad=True, rank=rank),
    "late, encoders": lambda rank: sharded(False, "encoders", rank=rank),
    "late, root": lambda rank: sharded(False, "root", rank=rank),
    "independent, root": lambda rank: sharded(False, "root", rank=rank, independent=True),
    "independent, encoders": lambda rank: sharded(False, "encoders", rank=rank, independent=True),
    "independent, encoders, input": lambda rank: sharded(False, "encoders", grad=True, rank=rank, independent=True),
    "independent, sync": lambda rank: sharded(False, "encoders", rank=rank, independent=True, sync=True),
    "tensor parallel, general": lambda rank: parallel(True, rank),
    "tensor parallel, branch": lambda rank: parallel(True, rank, per="branch"),
    "tensor parallel, model": lambda rank: parallel(True, rank, per="model"),
    "tensor parallel, collapse": lambda rank: parallel(False, rank),
}


def work(rank: int, size: int, folder: Path) -> None:
    outcomes = {}
    for name, body in BODIES.items():
        try:
            outcomes[name] = body(rank)
        except Exception as error:
            outcomes[name] = {"error": f"{type(error).__name__}: {error}"}
        dist.barrier()
    torch.save(outcomes, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank found, by the name of the body; all bodies run in one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(work, folder, size=RANKS)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    return {name: [each[name] for each in found] for name in BODIES}


def assert_refused(outcome: dict[str, Any]) -> None:
    assert re.match(r"RuntimeError: .*FSDP2.*independent=True", outcome.get("error", "no error")), outcome


def assert_close(outcome: dict[str, Any], path: str | None = None) -> None:
    assert "error" not in outcome, outcome["error"]
    assert outcome["difference"] <= CLOSE
    assert path is None or outcome["path"] == path


@pytest.mark.parametrize("name", ["general, encoders", "general, encoders, input", "general, root, input"])
def test_fsdp2_refuses_separate_passes_by_name(outcomes: dict, name: str) -> None:
    for outcome in outcomes[name]:
        assert_refused(outcome)


def test_fsdp2_late_fusion_without_the_assertion_is_refused_by_name(outcomes: dict) -> None:
    """The graph ends in unsharded copies, so independence cannot be seen."""
    for outcome in outcomes["late, encoders"]:
        assert_refused(outcome)


@pytest.mark.parametrize("name", ["general, root", "late, root"])
def test_fsdp2_with_one_group_is_right_or_refused_by_name(outcomes: dict, name: str) -> None:
    """The root's parameters stay unsharded from forward to backward; what matters is that nothing is silently wrong."""
    for outcome in outcomes[name]:
        if "error" in outcome:
            assert_refused(outcome)
        else:
            assert_close(outcome)


@pytest.mark.parametrize("name", [name for name in BODIES if name.startswith("independent")])
def test_fsdp2_collapses_where_the_user_asserts_independence(outcomes: dict, name: str) -> None:
    for outcome in outcomes[name]:
        assert_close(outcome, "collapse")


@pytest.mark.parametrize("name", [name for name in BODIES if name.startswith("tensor parallel")])
def test_tensor_parallel_parameters(outcomes: dict, name: str) -> None:
    """A DTensor alone is no obstacle: its inner products are sums over the ranks."""
    for outcome in outcomes[name]:
        assert_close(outcome)
        assert (outcome["path"] == "collapse") == name.endswith("collapse")
