"""All trainings for some seeds, and what they come to."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from fas.backbones import backbone
from fas.evaluation.metrics import auc
from fas.protocols import cells, gather
from fas.samples import DOMAINS, Samples
from fas.standin import COUNTS, cached_split
from fas.study import SENSORS
from fas.systems import Setup
from fas.training import Options, fit, score

from .trainings import SYSTEMS, Measured, every_second


class Found(NamedTuple):
    """Of one way of training, a value a seed."""

    runs: list[Measured]
    auc: list[float]  # %, on the site that was left out


def study(seeds: int, target: str, folder: Path) -> dict[str, Found]:
    cell = next(cell for cell in cells("P1") if target in cell.targets)
    found = {name: Found([], []) for name in SYSTEMS}
    for seed in range(seeds):
        train, dev, test = gather(cell, partial(faces, folder, seed))
        setup, seen, options = Setup(backbone("small"), SENSORS, len(DOMAINS)), every_second(dev), Options(seed=seed)
        for name, make in SYSTEMS.items():
            system = fit(partial(make, setup, seen=seen), train, dev, options).system
            assert isinstance(system, Measured)
            system.look()
            found[name].runs.append(system)
            found[name].auc.append(100 * auc(score(system, test, options)[0].numpy(), test.live.numpy()))
        print(f"seed {seed} done", flush=True)
    return found


def faces(folder: Path, seed: int, domain: str, split: str) -> Samples:
    return cached_split(folder, domain, split, COUNTS[split], seed=seed)
