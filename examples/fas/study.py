"""A study: systems trained on the sources of a protocol's cells, for several seeds, and scored on their targets.

A *unit* is one training: a system, the sources, a seed. Its folder holds the checkpoint and the scores of every cell
that has these sources, so that P2 costs no training that P1 has done, and that what is finished is not done again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import record
from .backbones import backbone
from .evaluation.metrics import Scored, eer_threshold
from .evaluation.results import Result
from .pretrain import pretrained
from .protocols import AbsentKind, Cell, gather
from .samples import DOMAINS, Samples
from .systems import ABLATION, ALONE, LATE_MEAN, SYSTEMS, Setup, System
from .training import Fitted, History, Options, fit, place, score

EPOCHS = ("last", "best")
SENSORS = {"rgb": 3, "depth": 1, "infrared": 1}  # channels
COST = {"MMDG": 4, "MMDG repaired": 5, **dict.fromkeys(ABLATION, 4), **dict.fromkeys(ALONE, 0.4)}  # of a plain training


class Plan(NamedTuple):
    """What to do."""

    cells: tuple[Cell, ...]
    systems: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Any  # fas.sources.Standin or Lists
    out: Path
    options: Options
    backbone: str = "small"
    weights: Path | None = None
    resume: bool = False
    every: int = 0  # steps between checkpoints within an epoch


class Unit(NamedTuple):
    """One training, and the cells to score."""

    system: str
    seed: int
    cells: tuple[Cell, ...]  # with the same sources

    def folder(self, out: Path) -> Path:
        """Where it leaves its files."""
        cell = self.cells[0]
        trained_on = "".join(cell.sources) + (f" without {cell.left_out}" if cell.left_out else "")
        return out / trained_on / f"seed-{self.seed}" / self.system

    def cost(self, epochs: int) -> float:
        """Of the training, in epochs of the plain baseline on three domains."""
        return epochs * COST.get(self.system, 1.2) * len(self.cells[0].sources) / 3


def units(plan: Plan) -> list[Unit]:
    """All trainings, the long ones first."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in plan.cells:
        groups.setdefault((cell.sources, cell.left_out), []).append(cell)
    every = [Unit(s, seed, tuple(cells)) for seed in plan.seeds for cells in groups.values() for s in plan.systems]
    return sorted(every, key=lambda unit: -unit.cost(1))


def setup(plan: Plan) -> Setup:
    """What systems are made from."""
    channels = {**SENSORS, "infrared": len(plan.options.infrared)}
    return Setup(backbone(plan.backbone, plan.weights), channels, len(DOMAINS), sync=place()[1] > 1)


def run(unit: Unit, plan: Plan, progress: Callable[[float], object]) -> str:
    """Train and score; returns why not, where there is nothing to score."""
    folder, rank = unit.folder(plan.out), place()[0]
    files = {cell: file_of(unit, cell, plan.out) for cell in unit.cells}
    options, done, made = plan.options._replace(seed=unit.seed), folder / record.NAME, made_from(unit, plan)
    if plan.resume and all(path.exists() for path in (*files.values(), done)):
        record.check(done, made)
        return ""
    get = partial(plan.source.get, unit.seed)
    try:
        train, dev, test = gather(unit.cells[0], get)
    except AbsentKind as reason:
        return str(reason)
    if rank == 0:
        done.unlink(missing_ok=True)  # it is not
    parts = setup(plan)
    if options.pretrain:
        parts = parts._replace(backbone=pretrained(parts.backbone, train, steps=options.pretrain, seed=unit.seed))
    make = partial((SYSTEMS | ABLATION)[unit.system], parts)
    fitted = fit(make, train, dev, options, checkpoint=folder / "checkpoint.pt", every=plan.every,
                 resume=plan.resume, progress=progress)  # fmt: skip
    if rank == 0:
        states = {"last": {k: v.clone() for k, v in fitted.system.state_dict().items()}, "best": fitted.best}
        for cell in unit.cells:
            own = test if cell.targets == unit.cells[0].targets else gather(cell, get)[2]
            save_scores(files[cell], fitted.system, states, dev, own, options, cell.missing)
        save_history(folder / "history.json", fitted)
        thresholds = {r.epoch: eer_threshold(*r.dev[:2]) for r in load(unit, unit.cells[0], plan.out)}
        record.write_text(done, json.dumps(made | {"size": train.rgb.shape[-1], "thresholds": thresholds}))
    return ""


def made_from(unit: Unit, plan: Plan) -> dict[str, Any]:
    """What decides a training, as JSON has it."""
    cell, options = unit.cells[0], plan.options._replace(seed=unit.seed, device="", workers=0)
    weights = None if plan.weights is None else str(plan.weights.resolve())
    made = {"system": unit.system, "sources": cell.sources, "left_out": cell.left_out, "domains": len(DOMAINS),
            "backbone": plan.backbone, "weights": weights, "options": options._asdict()}  # fmt: skip
    return json.loads(json.dumps(made))


def save_scores(
    path: Path, system: System, states: dict, dev: Samples, test: Samples, options: Options, missing: Sequence[str]
) -> None:
    """The scores of both epochs; development data miss nothing, as nobody knows beforehand what will be missing."""
    arrays: dict[str, np.ndarray] = {}
    for epoch in EPOCHS:
        system.load_state_dict(states[epoch])
        for name, samples, gone in (("dev", dev, ()), ("test", test, missing)):
            scores, trust = score(system, samples, options, gone)
            arrays[f"{epoch} {name}"] = scores.numpy()
            if name == "test" and epoch == "last":
                arrays |= {f"confidence {m}": c.numpy().astype(np.float16) for m, c in trust.items()}
    system.load_state_dict(states["last"])
    for name, samples in (("dev", dev), ("test", test)):
        arrays |= {f"{name} live": samples.live.numpy(), f"{name} kind": np.array(samples.kind_names),
                   f"{name} identity": samples.identity.numpy()}  # fmt: skip
    partial_ = path.with_suffix(".partial.npz")
    np.savez_compressed(partial_, **arrays)  # pyright: ignore[reportArgumentType]
    partial_.replace(path)


def save_history(path: Path, fitted: Fitted) -> None:
    """What training showed, as JSON."""
    record.write_text(path, json.dumps(fitted.history._asdict()))


def load_history(folder: Path) -> History:
    """Read it."""
    return History(**json.loads((folder / "history.json").read_text()))


def results(plan: Plan) -> list[Result]:
    """Every result on disk that the plan asked for, and the late mean where its three parts are there."""
    found = [result for unit in units(plan) for cell in unit.cells for result in load(unit, cell, plan.out)]
    if set(ALONE) <= set(plan.systems):
        for unit in units(plan._replace(systems=(next(iter(ALONE)),))):
            for cell in unit.cells:
                thirds = [load(unit._replace(system=name), cell, plan.out) for name in ALONE]
                found += [late_mean(three) for three in zip(*thirds, strict=True)]
    rows = [*ALONE, LATE_MEAN, *SYSTEMS, *ABLATION]  # of a table
    return sorted(found, key=lambda r: (rows.index(r.system), plan.cells.index(r.cell), r.seed))


def file_of(unit: Unit, cell: Cell, out: Path) -> Path:
    """The scores of a unit on a cell."""
    name = f"{cell.protocol} {cell.name} {' '.join(cell.missing)}".strip()
    return unit.folder(out) / f"{name}.npz"


def load(unit: Unit, cell: Cell, out: Path) -> Iterator[Result]:
    """The results of a unit on a cell, one an epoch; none if it has not run."""
    path = file_of(unit, cell, out)
    if not path.exists():
        return
    with np.load(path) as file:
        arrays = dict(file)
    for epoch in EPOCHS:
        scored = [
            Scored(arrays[f"{epoch} {part}"], arrays[f"{part} live"], arrays[f"{part} kind"].tolist(),
                   arrays[f"{part} identity"].tolist())
            for part in ("dev", "test")
        ]  # fmt: skip
        yield Result(unit.system, cell, unit.seed, epoch, *scored)


def late_mean(three: Sequence[Result]) -> Result:
    """The mean log-odds of systems that see one modality each; one whose modality is missing has no say."""
    heard = [r for r in three if ALONE[r.system] not in three[0].cell.missing]
    dev, test = (np.mean([getattr(r, part).scores for r in heard], 0) for part in ("dev", "test"))
    first = three[0]
    return first._replace(system=LATE_MEAN, dev=first.dev._replace(scores=dev), test=first.test._replace(scores=test))


def confidences(unit: Unit, cell: Cell, out: Path) -> dict[str, Tensor]:
    """Of the patches of each modality in the test, "b n"."""
    with np.load(file_of(unit, cell, out)) as file:
        named = {name: file[name] for name in file.files if name.startswith("confidence ")}
    return {name.removeprefix("confidence "): torch.from_numpy(x.astype(np.float32)) for name, x in named.items()}


def run_all(plan: Plan, jobs: int, progress: Callable[[Unit, float], object]) -> Iterator[str]:
    """Run all units, `jobs` side by side; yields what could not be scored."""
    todo = units(plan)
    if jobs == 1:
        for unit in todo:
            if reason := run(unit, plan, partial(progress, unit)):
                yield f"{unit.system}, {unit.cells[0].name}: {reason}"
        return
    context = get_context("spawn")
    with context.Manager() as manager:
        queue = manager.Queue()
        listener = Thread(target=_listen, args=(queue, todo, progress), daemon=True)
        listener.start()
        threads = max(1, torch.get_num_threads() // jobs)
        with ProcessPoolExecutor(
            jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            futures = {number: pool.submit(_job, number, unit, plan, queue) for number, unit in enumerate(todo)}
            for number, future in futures.items():
                if reason := future.result():
                    yield f"{todo[number].system}, {todo[number].cells[0].name}: {reason}"
        queue.put(None)
        listener.join()


def _job(number: int, unit: Unit, plan: Plan, queue: Any) -> str:
    return run(unit, plan, lambda steps: queue.put((number, steps)))


def _listen(queue: Any, todo: list[Unit], progress: Callable[[Unit, float], object]) -> None:
    while (said := queue.get()) is not None:
        progress(todo[said[0]], said[1])
