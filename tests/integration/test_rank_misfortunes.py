"""Misfortunes of single ranks: training goes on as in one process, or all ranks stop with an error. None hangs."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from balancekit import Branches, FeatureDensity, PrototypeBank, Rebalancer
from balancekit.losses import pmr_loss
from balancekit.modulation import AGM, ARL, OGM, scale_gradients
from balancekit.surgery import MMPareto, PCGrad, ReGrad, Rule, Sum
from balancekit.uncertainty import ProbabilitySummary, ValueSummary
from tests.reliability.chaos import launch

Say = Callable[[str], None]
NAMES = ("audio", "video", "text")
HALVES = (slice(0, 4), slice(4, 8))


class Model(nn.Module):
    """Coupled encoders, a head a modality with more numbers than an encoder, and a joint head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = {"dtype": torch.float64}
        self.encoders = nn.ModuleDict({m: nn.Linear(3, 4, **kind) for m in NAMES})
        self.heads = nn.ModuleDict({m: nn.Linear(4, 9, **kind) for m in NAMES})
        self.joint = nn.Linear(12, 9, **kind)

    def forward(self, x: dict[str, Tensor], y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and the unimodal losses of the modalities in `x`; each feature also sees the one before it."""
        own = {m: self.encoders[m](each) for m, each in x.items()}
        before = dict(zip(own, [*own][-1:] + [*own][:-1], strict=True))
        features = {m: z + 0.5 * torch.tanh(z * own[before[m]]) for m, z in own.items()}
        joined = torch.cat([features.get(m, y.new_zeros(len(y), 4, dtype=torch.float64)) for m in NAMES], -1)
        total = F.cross_entropy(self.joint(joined), y)
        return total, {m: F.cross_entropy(self.heads[m](z), y) for m, z in features.items()}

    def branches(self) -> Branches:
        return Branches(self, {m: f"encoders.{m}" for m in NAMES})


def batch(seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(8, 3, generator=g, dtype=torch.float64) for m in NAMES}, torch.randint(9, (8,), generator=g)


def of(rank: int, x: dict[str, Tensor], y: Tensor, without: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], Tensor]:
    return {m: each[HALVES[rank % 2]] for m, each in x.items() if m not in without}, y[HALVES[rank % 2]]


def parallel(model: nn.Module) -> DistributedDataParallel:
    return DistributedDataParallel(model, find_unused_parameters=True)


def assert_ranks_agree(*tensors: Tensor) -> None:
    for each in tensors:
        others = [torch.empty_like(each) for _ in range(dist.get_world_size())]
        dist.all_gather(others, each.detach())
        assert all(torch.equal(each, other) for other in others)


def assert_encoders(model: Model, reference: Model) -> None:
    for m in NAMES:
        for a, b in zip(model.encoders[m].parameters(), reference.encoders[m].parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=lambda text, m=m: f"{m}: {text}")
            assert_ranks_agree(a.grad)


# Training goes on: encoders get the gradients of one process, whose losses are means over the ranks that have them


def absent(rank: int, size: int, say: Say, rule: Rule, encoder_runs: bool) -> None:
    """The video is absent on rank 1, where its encoder runs on something or not at all; two steps."""
    model, reference = Model(), Model()
    wrapped, balancer = parallel(model), Rebalancer(model.branches(), rule, weight=0.3, sync=True)
    alone = Rebalancer(reference.branches(), rule, weight=0.3)
    for seed in range(2):
        x, y = batch(seed)
        confidence = dict.fromkeys(NAMES, 0.5)
        total, losses = wrapped(*of(rank, x, y, ("video",) if rank == 1 and not encoder_runs else ()))
        if rank == 1:
            losses.pop("video", None)
        each = [reference(*of(r, x, y, ("video",) if r == 1 and not encoder_runs else ())) for r in range(2)]
        means = {m: torch.stack([found[m] for _, found in each if m in found]).mean(0) for m in NAMES}
        means["video"] = each[0][1]["video"]
        model.zero_grad()
        reference.zero_grad()
        balancer(total, losses, confidence=confidence).backward()
        alone((each[0][0] + each[1][0]) / 2, means, confidence=confidence).backward()
        assert_encoders(model, reference)


def uneven(rank: int, size: int, say: Say) -> None:
    """Two and six samples: one process with the mean of the two ranks' losses."""
    model, reference, (x, y) = Model(), Model(), batch()
    wrapped, parts = parallel(model), (slice(0, 2), slice(2, 8))
    total, losses = wrapped({m: each[parts[rank]] for m, each in x.items()}, y[parts[rank]])
    Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=True)(total, losses).backward()
    (a, of_a), (b, of_b) = (reference({m: each[part] for m, each in x.items()}, y[part]) for part in parts)
    means = {m: (of_a[m] + of_b[m]) / 2 for m in NAMES}
    Rebalancer(reference.branches(), ReGrad(), weight=0.3)((a + b) / 2, means).backward()
    assert_encoders(model, reference)


def without_sync(rank: int, size: int, say: Say) -> None:
    """Within ``no_sync`` nothing is averaged by the reducer, and the surgery is that of all ranks all the same."""
    model, reference = Model(), Model()
    wrapped, balancer = parallel(model), Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=True)
    alone = Rebalancer(reference.branches(), ReGrad(), weight=0.3)
    with wrapped.no_sync():
        balancer(*wrapped(*of(rank, *batch(0)))).backward()
    balancer(*wrapped(*of(rank, *batch(1)))).backward()
    for seed in range(2):
        alone(*reference(*batch(seed))).backward()
    assert_encoders(model, reference)


def other_order(rank: int, size: int, say: Say) -> None:
    """The losses come in another order on rank 1."""
    model, reference = Model(), Model()
    wrapped = parallel(model)
    total, losses = wrapped(*of(rank, *batch()))
    losses = losses if rank == 0 else dict(reversed(losses.items()))
    Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=True)(total, losses).backward()
    Rebalancer(reference.branches(), ReGrad(), weight=0.3)(*reference(*batch())).backward()
    assert_encoders(model, reference)


def wide_loss(rank: int, size: int, say: Say) -> None:
    """Losses are float32, but one on rank 0, which rank 1 has not."""
    model = Model()
    wrapped = parallel(model)
    total, losses = wrapped(*of(rank, *batch()))
    losses = {m: loss if m == "video" else loss.float() for m, loss in losses.items() if (m, rank) != ("video", 1)}
    Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=True)(total.float(), losses).backward()
    assert_ranks_agree(*(p.grad for p in model.encoders.parameters()))


def not_finite(rank: int, size: int, say: Say) -> None:
    """A loss of rank 1 is NaN: with sync and without every rank has NaN in that branch, so that all skip the step."""
    for sync in (False, True):
        model = Model()
        wrapped = parallel(model)
        total, losses = wrapped(*of(rank, *batch()))
        losses["video"] = losses["video"] * (torch.nan if rank == 1 else 1.0)
        Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=sync)(total, losses).backward()
        assert model.encoders["video"].weight.grad.isnan().any()
        grads = [p.grad.nan_to_num() for p in model.encoders.parameters()]
        assert_ranks_agree(*grads)


def joined(rank: int, size: int, say: Say) -> None:
    """Five steps and two, within torch's Join; what is kept is committed afterwards."""
    model, bank = Model(), PrototypeBank(9, 3, decay=0.5)
    wrapped, balancer = parallel(model), Rebalancer(model.branches(), ReGrad(), weight=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Join([wrapped]):
        for seed in range(5 - 3 * rank):
            x, y = of(rank, *batch(seed))
            optimizer.zero_grad()
            balancer(*wrapped(x, y)).backward()
            optimizer.step()
            bank.accumulate(x["audio"], y)
    bank.commit()
    assert_ranks_agree(*model.parameters(), bank.prototypes, bank.seen.to(torch.uint8))


def kept(rank: int, size: int, say: Say) -> None:
    """No sample of a class, no sample at all, and NaN on single ranks: banks, densities and coefficients agree."""
    bank, density, agm = PrototypeBank(3, 2, decay=0.5), FeatureDensity(2, classes=3), AGM(2)
    torch.manual_seed(rank)
    for labels in ([[0, 0, 1], [2]], [[], [1, 1]], [[], []], [[0], [2, 2]]):
        y = torch.tensor(labels[rank], dtype=torch.int64)
        z = torch.randn(len(y), 2) * (torch.nan if labels == [[0], [2, 2]] and rank == 1 else 1.0)
        bank.update(z, y)
        density.accumulate(z, y)
        density.commit()
        k = agm({"a": torch.cat([z, z], -1), "b": torch.zeros(len(y), 4)}, y, present={"b": y > 0})
        assert_ranks_agree(*(each.nan_to_num(-1) for each in k.values()))
    states = [each.nan_to_num(-1).double() for each in (*bank.buffers(), *density.buffers(), *agm.buffers())]
    assert_ranks_agree(*states)
    assert bank.seen.all()


def too_large_together(rank: int, size: int, say: Say) -> None:
    """Sums that are finite on each rank and not together: skipped, as in one process, and the next batch counts."""
    bank, density = PrototypeBank(1, 1, decay=0.5), FeatureDensity(1)
    for scale in (1.0, 3e38, 1.0):
        bank.update(torch.full((1, 1), scale), torch.zeros(1, dtype=torch.int64))
    for x in ([-1.0, 1.0], [(-1) ** rank * 3e19], [-1.0, 1.0]):
        density.accumulate(torch.tensor(x)[:, None])
        density.commit()
    torch.testing.assert_close(bank.prototypes, torch.ones(1, 1))
    torch.testing.assert_close(density(torch.full((1, 1), 2.0)), torch.full((1,), 2.0))


def other_seeds(rank: int, size: int, say: Say) -> None:
    """The noise of OGM-GE without a generator, after other seeds on each rank: gradients stay those of all."""
    torch.manual_seed(rank)
    layer = nn.ModuleDict({"audio": nn.Linear(2, 2)})
    for p in layer.parameters():
        p.grad = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape)
    scale_gradients(Branches(layer, {"audio": "audio"}), {"audio": 0.5}, noise=True)
    assert_ranks_agree(*(p.grad for p in layer.parameters()))


GOES_ON: dict[str, tuple[Any, ...]] = {
    **{
        f"{rule.__name__}, video absent, its encoder {'runs' if runs else 'does not run'}": (absent, rule(), runs)
        for rule in (ReGrad, MMPareto, PCGrad, Sum)
        for runs in (True, False)
    },
    "uneven batches": (uneven,),
    "no_sync": (without_sync,),
    "losses in another order": (other_order,),
    "a wider loss on one rank": (wide_loss,),
    "a NaN loss on one rank": (not_finite,),
    "unequal numbers of batches, joined": (joined,),
    "no sample of a class or of any": (kept,),
    "too large together": (too_large_together,),
    "other seeds": (other_seeds,),
}


@pytest.mark.parametrize("case", GOES_ON)
def test_training_goes_on(case: str) -> None:
    function, *args = GOES_ON[case]
    for rank, each in enumerate(launch(function, *args, size=2, seconds=45)):
        assert each.how == "done", f"rank {rank}: {each}"


# All ranks stop, and each says why: where sums would be mixed up the message names it on every rank


def scores(rank: int, names: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(rank)
    return {m: torch.randn(4, 3, generator=g) for m in names}, torch.randint(3, (4,), generator=g)


def differing(rank: int) -> dict[str, tuple[str, ...]]:
    return {"order": NAMES if rank == 0 else NAMES[::-1], "number": NAMES[: 3 - rank]}


def coefficients(rank: int, size: int, say: Say, way: str, kind: type) -> None:
    kind(0.5)(*scores(rank, differing(rank)[way]))


def prototypes_of(rank: int, size: int, say: Say, way: str) -> None:
    features, labels = scores(rank, differing(rank)[way])
    pmr_loss(features, labels, {m: PrototypeBank(3, 3, decay=0.5) for m in features})


def branches_in_another_order(rank: int, size: int, say: Say) -> None:
    model = Model()
    wrapped, branches = parallel(model), Branches(model, {m: f"encoders.{m}" for m in differing(rank)["order"]})
    Rebalancer(branches, ReGrad(), sync=True)(*wrapped(*of(rank, *batch())))


def variances(rank: int, size: int, say: Say) -> None:
    summary, values = ValueSummary(), torch.rand(3, 4)
    summary.update(values, variance=values if rank == 0 else None)
    summary.compute(sync=True)


def other_inputs(rank: int, size: int, say: Say) -> None:
    summary = ProbabilitySummary()
    summary.update(torch.rand(3, 4 + rank, 2).softmax(-1))
    summary.compute(sync=True)


def no_update(rank: int, size: int, say: Say) -> None:
    for summary in (ValueSummary(), ProbabilitySummary()):
        if rank == 0:
            summary.update(torch.rand(3, 4, 2).softmax(-1))
        summary.compute(sync=True)


SAYS_WHY: dict[str, tuple[tuple[Any, ...], str]] = {
    "OGM, other order": ((coefficients, "order", OGM), "logits"),
    "OGM, a modality left out": ((coefficients, "number", OGM), "logits"),
    "ARL, a modality left out": ((coefficients, "number", ARL), "logits"),
    "PMR, other order": ((prototypes_of, "order"), "features"),
    "branches in another order": ((branches_in_another_order,), "branches"),
    "variances on one rank": ((variances,), "variances"),
    "other inputs": ((other_inputs,), "shape"),
    "no update on one rank": ((no_update,), "shape"),
}


@pytest.mark.parametrize("case", SAYS_WHY)
def test_what_cannot_be_added_up_is_named_on_every_rank(case: str) -> None:
    (function, *args), word = SAYS_WHY[case]
    for rank, each in enumerate(launch(function, *args, size=2, seconds=45)):
        assert each.how == "error" and word in each.error and "all ranks" in each.error, f"rank {rank}: {each}"


def stops(rank: int, size: int, say: Say, way: str) -> None:
    """Rank 1 stops in the middle; the others wait for it in the reducer, in the surgery or in a bank."""
    model, bank = Model(), PrototypeBank(9, 3, decay=0.5)
    wrapped, balancer = parallel(model), Rebalancer(model.branches(), ReGrad(), weight=0.3, sync=way == "surgery")
    for seed in range(3):
        if rank == 1 and seed == 1:
            raise OSError("a file of this rank cannot be read")
        x, y = of(rank, *batch(seed))
        balancer(*wrapped(x, y)).backward()
        if way == "bank":
            bank.update(x["audio"], y)
    raise AssertionError("a step without rank 1")


@pytest.mark.parametrize("way", ["reducer", "surgery", "bank"])
def test_a_rank_that_stops_stops_the_others(way: str) -> None:
    ranks = launch(stops, way, size=3, seconds=45)
    assert [each.how for each in ranks] == ["error"] * len(ranks)
    assert "a file of this rank" in ranks[1].error
    assert all("gloo" in each.error for each in ranks if each is not ranks[1])


def sleeps(rank: int, size: int, say: Say) -> None:
    time.sleep(60)


def test_the_parent_ends_what_hangs() -> None:
    assert [each.how for each in launch(sleeps, size=2, seconds=2)] == ["hung", "hung"]
