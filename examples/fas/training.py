"""Training and scoring of one system: an ordinary loop, resumable at any step, on one process or several.

A step shows what its number says (:class:`~.data.Steps`), the checkpoint holds everything else that a step depends on:
a training that was killed and goes on ends with the same weights, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from .data import Batch, FaceData, Steps, hide
from .evaluation.metrics import auc
from .files import whole
from .samples import Samples
from .systems import System


class Options(NamedTuple):
    """How to train. All of it must be the same when a training goes on, except the last two lines."""

    epochs: int = 3
    batch: int = 24  # over all processes
    lr: float = 3e-3
    seed: int = 0
    infrared: tuple[str, ...] = ("grey",)
    pretrain: int = 0  # steps of M²A²E before it
    amp: str = "off"  # or "bf16", "fp16" (with a gradient scaler)
    device: str = "cpu"
    workers: int = 0


class History(NamedTuple):
    """What training showed."""

    losses: dict[str, list[float]]  # the branches' own, step by step
    conflicts: list[float]  # step by step, the share of pairs of gradients in conflict
    dev_auc: list[float]  # epoch by epoch


class Fitted(NamedTuple):
    """A trained system: `system` holds the weights of the last epoch, `best` those of the best on development data."""

    system: System
    best: dict[str, Tensor]
    history: History


def fit(
    make: Callable[[], System],
    train: Samples,
    dev: Samples,
    options: Options,
    *,
    checkpoint: Path | None = None,
    every: int = 0,
    resume: bool = False,
    made_from: str = "",
    progress: Callable[[float], object] = lambda epochs: None,
) -> Fitted:
    """Train what `make` makes; the state is written to `checkpoint` at each epoch's end and after `every` steps.

    Development data choose the best epoch, by AUC, and nothing else. With `resume`, a checkpoint must hold what this
    training would: `made_from`, the same number of processes, options and samples.
    """
    rank, processes = place()
    torch.manual_seed(options.seed)
    system = make().to(options.device)
    steps = Steps(
        train, epochs=options.epochs, size=options.batch, seed=options.seed, infrared=options.infrared,
        share=(rank, processes),
    )  # fmt: skip
    length = len(steps) // options.epochs
    branches = system.branches()
    groups = system.parameters() if branches is None else [g for g in branches.param_groups() if g["params"]]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(steps))
    scaler = torch.amp.GradScaler(options.device, enabled=options.amp == "fp16")
    parts = {"system": system, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    history, best, first = History({}, [], []), {}, 0
    run = repr((made_from, processes, options._replace(device="", workers=0), len(train.live), len(dev.live)))
    if resume and checkpoint is not None and rank == 0:
        for left in checkpoint.parent.glob(f".*-{checkpoint.name}"):  # by a kill in the writing
            left.unlink()
    if resume and checkpoint is not None and checkpoint.exists():
        state = read(checkpoint, options.device)
        if state["run"] != run:
            raise ValueError(f"resume: expected {checkpoint} to hold {run}, found {state['run']}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history, best, first = History(*state["history"]), state["best"], state["step"]
        restore_random(state["random"][rank], options.device)
        progress(first / length)

    net: torch.nn.Module = system if processes == 1 else DistributedDataParallel(system)
    looks = [share_of(samples, options, rank, processes) for samples in (train, dev)]
    ahead = range(first, len(steps))
    apart = torch.Generator()  # or the loader would draw from the global stream that was just restored
    loader = iter(DataLoader(steps, sampler=ahead, batch_size=None, num_workers=options.workers, generator=apart))
    for step in range(first, len(steps)):
        if step % length == 0:
            system.eval()
            with torch.no_grad():
                system.prepare(*looks, step // length)
        system.train()
        batch = next(loader).map(lambda x: x.to(options.device))
        with autocast(options):
            output = net(system.seen_in_training(batch))
        loss = system.loss(output, batch, step / len(steps))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        for m, value in system.branch_losses.items():
            history.losses.setdefault(m, []).append(value.item())
        history.conflicts.extend(value.item() for value in system.conflicts)
        system.conflicts.clear()
        done = step + 1
        if done % length == 0:
            history.dev_auc.append(auc(score(system, dev, options)[0].numpy(), dev.live.numpy()))
            if history.dev_auc[-1] == max(history.dev_auc):
                best = {name: value.clone() for name, value in system.state_dict().items()}
        if checkpoint is not None and (done % length == 0 or (every and done % every == 0)):
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"history": tuple(history), "best": best, "step": done, "run": run}
            state["random"] = gathered(random_state(options.device))
            if rank == 0:
                with whole(checkpoint) as partial:
                    torch.save(state, partial)
        progress(done / length)
    return Fitted(system, best, history)


def read(checkpoint: Path, device: str) -> dict[str, Any]:
    """The state that :func:`fit` wrote."""
    try:
        return torch.load(checkpoint, weights_only=True, map_location=device)
    except Exception as error:  # torch has many for it, and none names the file
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"resume: expected {checkpoint} to hold a whole checkpoint, found {reason!r}; "
            "delete it, and --resume trains from the start"
        ) from error


@torch.no_grad()
def score(system: System, samples: Samples, options: Options, missing: Iterable[str] = ()) -> tuple[Tensor, dict]:
    """How live each sample looks (log-odds "b"), and the confidence of its patches, {modality: "b n"}, on the CPU."""
    system.eval()
    scores, confidence = [], {}
    for batch in share_of(samples, options, 0, 1)():
        with autocast(options):
            output = system(hide(batch.inputs, missing))
        logits = output.logits.float().cpu()
        scores.append(logits[:, 1] - logits[:, 0])
        for m, trust in output.confidence.items():
            confidence.setdefault(m, []).append(trust[:, 1:].float().cpu())
    return torch.cat(scores), {m: torch.cat(parts) for m, parts in confidence.items()}


def share_of(samples: Samples, options: Options, rank: int, processes: int) -> Callable[[], Iterator[Batch]]:
    """Batches of this process's share of `samples`, as evaluation sees them."""
    data = FaceData(samples, infrared=options.infrared)
    rows = range(rank, len(data), processes)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(rows), 256):
            yield data[rows[start : start + 256]].map(lambda x: x.to(options.device))

    return batches


def autocast(options: Options) -> torch.autocast:
    """The forward pass in half precision, if so asked."""
    dtype = torch.float16 if options.amp == "fp16" else torch.bfloat16
    return torch.autocast(options.device, dtype, enabled=options.amp != "off")


def place() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gathered(state: list[Tensor]) -> list[list[Tensor]]:
    """That of each process."""
    every: list = [state] * place()[1]
    if dist.is_initialized():
        dist.all_gather_object(every, state)
    return every


def random_state(device: str) -> list[Tensor]:
    """The states of the global streams, which dropout draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]


def restore_random(states: list[Tensor], device: str) -> None:
    """Set them."""
    torch.set_rng_state(states[0].cpu())
    if device == "cuda":
        torch.cuda.set_rng_state(states[1].cpu())
