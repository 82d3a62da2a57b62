"""Random misfortunes on several ranks: no rank may hang, and no two may silently disagree.

    python tests/reliability/chaos.py --ranks 2 3 4 --seeds 0 1 2

Each number of ranks and each seed makes three schedules of a small training. A *steady* one has misfortunes that a
training must survive, on single ranks and in most of its steps. A *fatal* one has one more that must end in an error on
all ranks. In a *joined* one the ranks have unequal numbers of batches, within torch's ``Join``. Each rank sends a
checksum of all its parameters and buffers after every 100 steps and at the end; the parent compares them.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from balancekit import Branches, FeatureDensity, PrototypeBank, Rebalancer, prototypical_cross_entropy
from balancekit.modulation import AGM, MLB, OGM, scale_gradients, scale_updates
from balancekit.surgery import MMPareto, PCGrad, ReGrad

NAMES, CLASSES, WIDTH, BATCH = ("audio", "video", "text"), 4, 6, 8
STEPS, JOINED, EVERY, COMMIT = 120, 30, 100, 20  # nothing is pending on a rank when a checksum is taken
GROUP_SECONDS, PARENT_SECONDS = 30, 240

SURVIVED = (
    "small batch",
    "no batch",
    "no modality",
    "not run",
    "one class",
    "nan loss",
    "nan input",
    "order",
    "no_sync",
)
FATAL = {  # how the rank ends on which it happens, and a word of its error
    "raises": ("error", "a file of this rank"),
    "ends early": ("done", ""),
    "dies": ("died", ""),
    "wrong label": ("error", "labels: expected"),
    "scores left out": ("error", "logits: expected"),
    "scores in another order": ("error", "logits: expected"),
}
OUTCOMES = ("agreed to the end", "clear error on all ranks", "STOPPED WITHOUT REASON", "HANG", "DISAGREED")


class Ended(NamedTuple):
    """How a rank ended: "done", "error", "died" or "hung"; the text of its error; and what it said before."""

    how: str
    error: str
    said: list[str]


def launch(function: Callable[..., None], *args: Any, size: int, seconds: float = PARENT_SECONDS) -> list[Ended]:
    """Call ``function(rank, size, say, *args)`` in `size` gloo ranks, and kill those that are left after `seconds`."""
    context = multiprocessing.get_context("forkserver")
    # imported once, not by each rank; DistributedDataParallel takes seconds over the first
    context.set_forkserver_preload(["torch._dynamo", function.__module__])
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_rank, args=(rank, size, folder, pipes[rank][1], function, args), daemon=True)
            for rank in range(size)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        end = time.monotonic() + seconds
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        hung = [process.is_alive() for process in processes]
        for process in processes:
            process.kill()
            process.join()
        return [_ended(receiver, left) for (receiver, _), left in zip(pipes, hung, strict=True)]


def _rank(rank: int, size: int, folder: str, pipe: Any, function: Callable[..., None], args: tuple) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    limit = timedelta(seconds=GROUP_SECONDS)
    try:
        dist.init_process_group("gloo", f"file://{folder}/store", limit, size, rank)
        function(rank, size, lambda text: pipe.send(("said", text)), *args)
        pipe.send(("done", ""))
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))
    os._exit(0)  # closes what others wait for; a group that failed may not be torn down in order


def _ended(receiver: Any, hung: bool) -> Ended:
    sent = []
    try:
        while True:
            sent.append(receiver.recv())
    except EOFError:
        pass
    said = [text for kind, text in sent if kind == "said"]
    how, error = sent[-1] if sent and sent[-1][0] != "said" else ("died", "")
    return Ended("hung" if hung else how, error, said)


class Schedule(NamedTuple):
    """What happens in one training: a misfortune (kind, rank, modality) or none for each step, and the setting."""

    kind: str
    steps: tuple[tuple[str, int, str] | None, ...]
    fatal: tuple[str, int, int]  # kind, rank, step; "" and -1 if there is none
    sync: bool
    rule: str
    modulator: str
    seed: int

    def __str__(self) -> str:
        counts = Counter(each[0] for each in self.steps if each is not None)
        events = ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))
        fatal, rank, step = self.fatal
        end = f"; {fatal} on rank {rank} in step {step}" if fatal else ""
        return f"{self.kind}, sync={self.sync}, {self.rule}, {self.modulator}: {events}{end}"


def draw(kind: str, size: int, seed: int) -> Schedule:
    """A schedule, the same for equal arguments."""
    dice = random.Random(f"{kind} {size} {seed}")
    count = JOINED if kind == "joined" else STEPS
    kinds = [each for each in SURVIVED if kind != "joined" or each != "no_sync"]
    steps = tuple(
        (dice.choice(kinds), dice.randrange(size), dice.choice(NAMES)) if dice.random() < 0.7 else None
        for _ in range(count)
    )
    fatal = (
        (dice.choice(tuple(FATAL)), dice.randrange(size), dice.randrange(10, 40)) if kind == "fatal" else ("", -1, -1)
    )
    sync = kind != "joined" and dice.random() < 0.7
    rule, modulator = dice.choice(("ReGrad", "MMPareto", "PCGrad")), dice.choice(("OGM", "MLB", "AGM"))
    return Schedule(kind, steps, fatal, sync, rule, modulator, seed)


class Model(nn.Module):
    """Encoders that see each other a little, a head for each, and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for m in NAMES})
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTH, CLASSES) for m in NAMES})
        self.joint = nn.Linear(WIDTH * len(NAMES), CLASSES)

    def forward(self, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Features and logits of the modalities that are in `x`, and the joint logits."""
        features = {m: self.encoders[m](each) for m, each in x.items()}
        mean = torch.stack(list(features.values())).mean(0)
        features = {m: z + 0.3 * torch.tanh(mean * z) for m, z in features.items()}
        everything = torch.cat([features.get(m, torch.zeros_like(mean)) for m in NAMES], -1)
        return features, {m: self.heads[m](z) for m, z in features.items()}, self.joint(everything)


class Training:
    """One rank's model and all that learns with it."""

    def __init__(self, schedule: Schedule, rank: int) -> None:
        torch.manual_seed(rank)  # no two ranks alike; DistributedDataParallel hands out the parameters of rank 0
        self.schedule, self.rank = schedule, rank
        self.model = Model()
        self.wrapped = DistributedDataParallel(self.model, find_unused_parameters=True)
        self.branches = Branches(self.model, {m: f"encoders.{m}" for m in NAMES})
        rule = {"ReGrad": ReGrad, "MMPareto": MMPareto, "PCGrad": PCGrad}[schedule.rule]()
        self.balancer = Rebalancer(self.branches, rule, weight=0.3, sync=schedule.sync)
        self.modulator = {"OGM": lambda: OGM(0.5), "MLB": MLB, "AGM": lambda: AGM(len(NAMES))}[schedule.modulator]()
        self.banks = nn.ModuleDict({m: PrototypeBank(CLASSES, WIDTH, decay=0.8) for m in NAMES})
        self.densities = nn.ModuleDict({m: FeatureDensity(WIDTH, classes=CLASSES, decay=0.8) for m in NAMES})
        self.optimizer = torch.optim.SGD(self.branches.param_groups(), lr=0.05, momentum=0.9)
        self.data = torch.Generator().manual_seed(1000 * schedule.seed + rank)
        self.centres = 2 * torch.randn(len(NAMES), CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))

    def checksum(self) -> str:
        """Of all parameters and buffers."""
        digest = hashlib.sha256()
        for module in (self.model, self.banks, self.densities, self.modulator):
            for each in module.state_dict().values():
                if isinstance(each, Tensor):
                    digest.update(each.numpy().tobytes())
        return digest.hexdigest()[:16]

    def batch(self, happens: str, name: str) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of this rank."""
        size = {"small batch": 1, "no batch": 0}.get(happens, BATCH)
        labels = torch.randint(CLASSES, (size,), generator=self.data)
        if happens == "one class":
            labels = torch.zeros_like(labels)
        x = {
            m: centres[labels] + torch.randn(size, WIDTH, generator=self.data)
            for m, centres in zip(NAMES, self.centres, strict=True)
        }
        if happens == "nan input":
            x[name] = x[name] * torch.nan
        if happens == "not run":
            del x[name]
        return x, labels

    def losses(self, x: dict[str, Tensor], labels: Tensor, happens: str, name: str) -> dict[str, Any]:
        """One forward pass; whatever is absent on this rank is left out of the losses."""
        features, logits, joint = self.wrapped(x)
        losses = {}
        for m, z in features.items():
            bank = self.banks[m]
            near = prototypical_cross_entropy(z, labels, bank.prototypes, seen=bank.seen)
            losses[m] = mean_cross_entropy(logits[m], labels) + 0.1 * near
        if happens == "no modality":
            del losses[name]
        if happens == "nan loss":
            losses[name] = losses[name] * torch.nan
        if happens == "order":
            losses = dict(reversed(losses.items()))
        return {"features": features, "logits": logits, "total": mean_cross_entropy(joint, labels), "losses": losses}

    def backward(self, found: dict[str, Any]) -> None:
        """Surgery, with the confidence of the densities."""
        confidence = {
            m: torch.cat([z.new_ones(1), self.densities[m].confidence(z)]) for m, z in found["features"].items()
        }
        self.balancer(found["total"], found["losses"], confidence=confidence).backward()

    def step(self, index: int) -> None:
        """One step of the optimizer; everything joins in if ranks have equally many."""
        happens, where, name = self.schedule.steps[index] or ("", -1, NAMES[0])
        no_sync, here = happens == "no_sync", happens if where == self.rank else ""
        fatal = self.schedule.fatal[0] if self.schedule.fatal[1:] == (self.rank, index) else ""
        self.optimizer.zero_grad()
        if no_sync:
            with self.wrapped.no_sync():
                self.backward(self.losses(*self.batch("", name), "", name))
        x, labels = self.batch(here, name)
        found = self.losses(x, labels, here, name)
        self.backward(found)
        absent = {name} if here in ("no modality", "not run") else set()
        features = {m: z for m, z in found["features"].items() if m not in absent}
        for m, z in features.items():
            self.densities[m].accumulate(z, labels)
        together = self.schedule.kind != "joined"
        if together:
            self.modulate(found["logits"], labels, absent, fatal)
        if all(p.grad is None or bool(p.grad.isfinite().all()) for p in self.model.parameters()):
            self.optimizer.step()
        if together:
            for m in NAMES:  # one order on all ranks
                z = features.get(m, torch.zeros(0, WIDTH))
                self.banks[m].update(z, labels[: len(z)] + (CLASSES if fatal == "wrong label" else 0))
                if (index + 1) % COMMIT == 0:
                    self.densities[m].commit()

    def modulate(self, logits: dict[str, Tensor], labels: Tensor, absent: set[str], fatal: str) -> None:
        """Coefficients act on updates; noise on gradients, equal on all ranks."""
        silent = torch.zeros(len(labels), CLASSES)
        scores = {m: logits[m] if m not in absent else silent for m in NAMES}
        if fatal == "scores left out":
            del scores[NAMES[-1]]
        if fatal == "scores in another order":
            scores = dict(reversed(scores.items()))
        present = {m: torch.zeros(len(labels), dtype=torch.bool) for m in absent}
        coefficients = self.modulator(scores, labels, present=present)
        noise = torch.Generator().manual_seed(self.schedule.seed)
        scale_gradients(self.branches, dict.fromkeys(NAMES, 1.0), noise=True, generator=noise)
        scale_updates(self.optimizer, coefficients)


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean, and 0 of no samples."""
    return F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)


def train(rank: int, size: int, say: Callable[[str], None], schedule: Schedule) -> None:
    """Run the schedule on one rank, and say the checksums."""
    training = Training(schedule, rank)
    joined = schedule.kind == "joined"
    with Join([training.wrapped]) if joined else nullcontext():
        for index in range(len(schedule.steps) - 7 * rank if joined else len(schedule.steps)):
            fatal = schedule.fatal[0] if schedule.fatal[1:] == (rank, index) else ""
            if fatal == "raises":
                raise OSError("a file of this rank cannot be read")
            if fatal == "ends early":
                return
            if fatal == "dies":
                os._exit(1)
            training.step(index)
            if (index + 1) % EVERY == 0:
                say(f"{index + 1}: {training.checksum()}")
    if joined:
        for density in training.densities.values():
            density.commit()
    say(f"end: {training.checksum()}")


def outcome(schedule: Schedule, ranks: list[Ended]) -> str:
    """What became of it."""
    fatal, culprit, _ = schedule.fatal
    if any(len(set(sums)) > 1 for sums in zip(*(each.said for each in ranks), strict=False)):
        return "DISAGREED"
    if any(each.how == "hung" for each in ranks):
        return "HANG"
    if not fatal and all(each.how == "done" for each in ranks):
        return "agreed to the end"
    how, word = FATAL.get(fatal, ("", ""))
    due = ranks[culprit].how == how and word in ranks[culprit].error
    others = all(each.how == "error" for rank, each in enumerate(ranks) if rank != culprit)
    return "clear error on all ranks" if due and others else "STOPPED WITHOUT REASON"


def trials(sizes: list[int], seeds: list[int]) -> Iterator[tuple[Schedule, str]]:
    """Run all schedules, one after another."""
    for size in sizes:
        for seed in seeds:
            for kind in ("steady", "fatal", "joined"):
                schedule, start = draw(kind, size, seed), time.monotonic()
                ranks = launch(train, schedule, size=size)
                found = outcome(schedule, ranks)
                print(
                    f"{size} ranks, seed {seed}: {schedule}\n    {found}, {time.monotonic() - start:.0f} s", flush=True
                )
                for rank, each in enumerate(ranks):
                    if found not in OUTCOMES[:1]:
                        print(f"    rank {rank} {each.how}: {each.error[:200] or ', '.join(each.said)}", flush=True)
                yield schedule, found


def main() -> int:
    """Print the counts; 1 if anything hung, disagreed or stopped without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP wonders whether it must look for unused ones
    counts = Counter((schedule.kind, found) for schedule, found in trials(chosen.ranks, chosen.seeds))
    print("\n" + "".join(f"{kind:>10}" for kind in ("steady", "fatal", "joined")))
    for each in OUTCOMES:
        print("".join(f"{counts[kind, each]:>10}" for kind in ("steady", "fatal", "joined")) + f"   {each}")
    return int(any(found in OUTCOMES[2:] for _, found in counts))


if __name__ == "__main__":
    sys.exit(main())
