"""Surgery under DistributedDataParallel on two gloo ranks, against loops written by hand."""

from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from balancekit import Branches, MultiBranch, Rebalancer, ReGrad
from tests.integration import ranks
from tests.models import Toy, batches
from tests.oracles import regrad as oracle

M = 3


class Losses(nn.Module):
    """Toy with a forward that returns everything a loss needs, as DistributedDataParallel likes it."""

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.toy = Toy(M, coupled=coupled)
        self.unused = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.toy(x, y)

    def branches(self) -> Branches:
        return Branches(self, {f"m{i}": f"toy.encoders.m{i}" for i in range(M)})


def by_hand(model: Losses, x: Tensor, y: Tensor, without: slice | None = None) -> dict[nn.Parameter, Tensor]:
    """The oracle's gradients; with `without`, modality m1 is missing in those samples."""
    total, losses = model(x, y)
    if without is not None:
        has = [i for i in range(len(y)) if i not in range(len(y))[without]]
        losses["m1"] = model(x[:, has], y[has])[1]["m1"]
    return oracle.step(
        total,
        losses,
        {name: list(model.branches()[name]) for name in model.toy.names},
        list(model.toy.joint.parameters()) + (list(model.toy.heads.parameters()) if model.toy.coupled else []),
        confidence=dict.fromkeys(losses, 0.5),
        speed={name: -loss.item() for name, loss in losses.items()},
        weight=0.3,
        per="tensor",
        rest="sum",
    )


def pair(coupled: bool, unused: bool = False) -> tuple[Losses, Losses]:
    """A model and its twin, with what no loss reaches frozen unless DistributedDataParallel is to find it."""
    models = Losses(coupled), Losses(coupled)
    for model in models:
        model.unused.requires_grad_(unused)
        model.toy.heads.requires_grad_(coupled or unused)
    return models


def local_surgery(rank: int, size: int) -> None:
    for coupled in (True, False):
        for find_unused in (True, False):
            model, reference = pair(coupled, find_unused)
            wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused)
            balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
            paths = set()
            balancer.register_step_hook(lambda surgery, paths=paths: paths.add(surgery.path))
            optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, reference)]
            for x, y in batches(4, M):
                x, y = x + 0.1 * rank, y - rank
                total, losses = wrapped(x, y)
                balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
                for parameter, gradient in by_hand(reference, x, y).items():
                    dist.all_reduce(gradient)
                    parameter.grad = gradient / size
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            for a, b in zip(model.parameters(), reference.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
            # with the sink, the walk follows single outputs: it still sees that late fusion is independent
            assert paths == {"general" if coupled else "collapse"}


def test_local_surgery_is_the_mean_of_the_ranks_loops() -> None:
    ranks.run(local_surgery)


def accumulated(rank: int, size: int) -> None:
    for coupled in (True, False):
        model, reference = pair(coupled)
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
        sums: dict[nn.Parameter, Tensor] = {}
        for index, (x, y) in enumerate(batches(3, M)):
            x, y = x + 0.1 * rank, y - rank
            for parameter, gradient in by_hand(reference, x, y).items():
                sums[parameter] = sums.get(parameter, 0) + gradient / 3
            with wrapped.no_sync() if index < 2 else nullcontext():
                total, losses = wrapped(x, y)
                (balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)) / 3).backward()
        for a, b in zip(model.parameters(), reference.parameters(), strict=True):
            if b in sums:
                dist.all_reduce(sums[b])
                torch.testing.assert_close(a.grad, sums[b] / size, rtol=1e-10, atol=1e-12)


def test_accumulation_over_three_steps() -> None:
    ranks.run(accumulated)


def synced(rank: int, size: int) -> None:
    for coupled in (True, False):
        for missing_on in (None, 0, 1):
            model, reference = pair(coupled)
            if missing_on is not None:  # a loss outside the branches is the reducer's business: a mean over all ranks
                model.toy.heads.requires_grad_(False)
            wrapped = DistributedDataParallel(model)
            balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=True)
            for x, y in batches(2, M, size=8):
                part = slice(4 * rank, 4 * rank + 4)
                total, losses = wrapped(x[:, part], y[part])
                if rank == missing_on:
                    del losses["m1"]
                model.zero_grad()
                balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
                without = None if missing_on is None else slice(4 * missing_on, 4 * missing_on + 4)
                expected = by_hand(reference, x, y, without)
                for a, b in zip(model.parameters(), reference.parameters(), strict=True):
                    if a.requires_grad and b in expected:
                        torch.testing.assert_close(a.grad, expected[b], rtol=1e-10, atol=1e-12)


def test_sync_equals_one_process_with_the_large_batch() -> None:
    ranks.run(synced)


def static_graph(rank: int, size: int) -> None:
    for coupled in (True, False):
        model, reference = pair(coupled)
        wrapped = DistributedDataParallel(model, static_graph=True)
        balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
        for x, y in batches(3, M):
            x, y = x + 0.1 * rank, y - rank
            total, losses = wrapped(x, y)
            if coupled:
                with pytest.raises(RuntimeError, match=r"static_graph=True.*static_graph=False"):
                    balancer(total, losses)
                break
            model.zero_grad()
            balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
            for parameter, gradient in by_hand(reference, x, y).items():
                dist.all_reduce(gradient)
                torch.testing.assert_close(
                    twin(model, reference, parameter).grad, gradient / size, rtol=1e-10, atol=1e-12
                )


def twin(model: nn.Module, reference: nn.Module, parameter: nn.Parameter) -> nn.Parameter:
    """The parameter of `model` at the place of `parameter` in `reference`."""
    return next(a for a, b in zip(model.parameters(), reference.parameters(), strict=True) if b is parameter)


def test_static_graph_is_refused_on_the_general_path_only() -> None:
    ranks.run(static_graph)


class Idle(Losses):
    """A parameter of a branch that no loss reaches."""

    def __init__(self, coupled: bool) -> None:
        super().__init__(coupled)
        self.toy.encoders["m0"].register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))


def idle(rank: int, size: int, sync: bool) -> None:
    for coupled in (True, False):
        model, reference = Idle(coupled), Idle(coupled)
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=sync)
        for x, y in batches(2, M, size=8):
            part = slice(4 * rank, 4 * rank + 4)
            total, losses = wrapped(x[:, part], y[part])
            model.zero_grad()
            balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
            expected = by_hand(reference, *((x, y) if sync else (x[:, part], y[part])))
            for parameter, gradient in expected.items():
                if not sync:
                    dist.all_reduce(gradient)
                    gradient /= size
                found = twin(model, reference, parameter).grad
                found = torch.zeros_like(gradient) if found is None else found
                torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sync", [False, True], ids=["local", "sync"])
def test_a_branch_parameter_that_no_loss_reaches(sync: bool) -> None:
    """Handed over all the same, it would be "marked ready only once" and raise."""
    ranks.run(idle, sync)


def collectives(rank: int, size: int) -> None:
    """How many numbers travel besides the reducer's, in how many collectives."""
    real, sent = dist.all_reduce, []

    def counting(tensor: Tensor, *args: object, **options: object) -> object:
        sent.append(tensor.numel())
        return real(tensor, *args, **options)

    dist.all_reduce = counting
    try:
        for coupled in (True, False):
            schedules = []
            for missing_on in (None, 0, 1):
                model, _ = pair(coupled)
                model.toy.heads.requires_grad_(False)
                wrapped = DistributedDataParallel(model)
                balancer = Rebalancer(model.branches(), ReGrad(), sync=True)
                ((x, y),) = batches(1, M)
                total, losses = wrapped(x + rank, y)
                if rank == missing_on:
                    del losses["m1"]
                sent.clear()
                balancer(total, losses).backward()
                schedules.append(list(sent))
            encoders = sum(p.numel() for p in model.toy.encoders.parameters())
            counts = torch.tensor([[len(s), sum(s)] for s in schedules])
            theirs = [torch.empty_like(counts) for _ in range(size)]
            dist.all_gather(theirs, counts)
            assert all(torch.equal(counts, each) for each in theirs)
            for count, numbers in counts.tolist():
                leaves = len(list(model.toy.encoders.parameters()))
                facts = 4 * M + (2 + M) * (1 + leaves)  # and who reaches what, and one line more
                assert count <= (2 if coupled else 1)
                assert numbers <= facts + ((1 + M) * encoders if coupled else 0), (coupled, schedules)
    finally:
        dist.all_reduce = real


def test_sync_sends_a_few_facts_and_the_rows_in_one_collective_each() -> None:
    """The same on every rank, whichever modalities it has."""
    ranks.run(collectives)


def captured(rank: int, size: int) -> None:
    """Features that DistributedDataParallel returns (MultiBranch) and features captured inside it give the same."""
    results = []
    for inside in (False, True):
        toy = Toy(2, coupled=False)
        toy.heads.requires_grad_(False)
        groups = {name: f"encoders.{name}" for name in toy.names}
        net = Fused(toy)
        model = MultiBranch(net, {k: f"toy.{v}" for k, v in groups.items()})
        wrapped = DistributedDataParallel(net if inside else model, find_unused_parameters=True)
        ((x, y),) = batches(1, 2)
        if inside:
            with model.branches.capture() as features:
                output = wrapped(x + rank)
        else:
            output, features = wrapped(x + rank)
        losses = {name: (feature.sum(-1, keepdim=True) - y).square().mean() for name, feature in features.items()}
        Rebalancer(model.branches, ReGrad())((output - y).square().mean(), losses).backward()
        results.append([p.grad for p in toy.parameters() if p.requires_grad])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


class Fused(nn.Module):
    """The joint prediction of a late-fusion Toy."""

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, x: Tensor) -> Tensor:
        return self.toy.joint(torch.cat(list(self.toy.features(x).values()), -1))


def test_capture_inside_and_outside_of_ddp() -> None:
    ranks.run(captured)
