"""A study: systems trained on the sources of a protocol's cells, for several seeds, and scored on their targets."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from threading import Thread
from typing import Any

import torch

from . import record
from .backbones import backbone
from .evaluation.metrics import eer_threshold
from .plan import Plan, Unit, units
from .pretrain import pretrained
from .protocols import AbsentKind, gather
from .samples import DOMAINS
from .scores import load, save_history, save_scores
from .systems import ABLATION, SYSTEMS, Setup
from .training import fit, place

SENSORS = {"rgb": 3, "depth": 1, "infrared": 1}  # channels


def setup(plan: Plan) -> Setup:
    """What systems are made from."""
    channels = {**SENSORS, "infrared": len(plan.options.infrared)}
    return Setup(backbone(plan.backbone, plan.weights), channels, len(DOMAINS), sync=place()[1] > 1)


def run(unit: Unit, plan: Plan, progress: Callable[[float], object]) -> str:
    """Train and score; returns why not, where there is nothing to score."""
    folder, rank = unit.folder(plan.out), place()[0]
    files = {cell: unit.scores(cell, plan.out) for cell in unit.cells}
    options, done, made = plan.options._replace(seed=unit.seed), folder / record.NAME, made_from(unit, plan)
    if plan.resume and all(path.exists() for path in (*files.values(), done)):
        record.check(done, made)
        progress(options.epochs)
        return ""
    get = partial(plan.source.get, unit.seed)
    try:
        train, dev, test = gather(unit.cells[0], get)
    except AbsentKind as reason:
        progress(options.epochs)
        return str(reason)
    if rank == 0:
        done.unlink(missing_ok=True)  # it is not
    parts = setup(plan)
    if options.pretrain:
        parts = parts._replace(backbone=pretrained(parts.backbone, train, steps=options.pretrain, seed=unit.seed))
    make = partial((SYSTEMS | ABLATION)[unit.system], parts)
    fitted = fit(make, train, dev, options, checkpoint=folder / "checkpoint.pt", every=plan.every,
                 resume=plan.resume, made_from=json.dumps(made), progress=progress)  # fmt: skip
    if rank == 0:
        alike = unit.cells[0].targets
        tests = {cell: test if cell.targets == alike else gather(cell, get)[2] for cell in unit.cells}
        save_scores(fitted, dev, tests, files, options)
        save_history(folder / "history.json", fitted)
        thresholds = {r.epoch: eer_threshold(*r.dev[:2]) for r in load(unit, unit.cells[0], plan.out)}
        record.write_text(done, json.dumps(made | {"size": train.rgb.shape[-1], "thresholds": thresholds}))
    return ""


def made_from(unit: Unit, plan: Plan) -> dict[str, Any]:
    """What decides a training, as JSON has it."""
    cell, options = unit.cells[0], plan.options._replace(seed=unit.seed, device="", workers=0)
    weights = None if plan.weights is None else str(plan.weights.resolve())
    made = {
        "system": unit.system,
        "sources": cell.sources,
        "left_out": cell.left_out,
        "domains": len(DOMAINS),
        "data": plan.source.identity(),
        "backbone": plan.backbone,
        "weights": weights,
        "options": options._asdict(),
    }
    return json.loads(json.dumps(made))


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
