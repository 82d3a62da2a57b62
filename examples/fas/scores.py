"""What trainings said of each sample: written by :mod:`fas.study`, read for the report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import record
from .evaluation.metrics import Scored
from .evaluation.results import Result
from .files import whole
from .plan import Plan, Unit, units
from .protocols import Cell
from .samples import Samples
from .systems import ABLATION, ALONE, LATE_MEAN, SYSTEMS
from .training import Fitted, History, Options, score

EPOCHS = ("last", "best")


def save_scores(
    fitted: Fitted, dev: Samples, tests: Mapping[Cell, Samples], files: Mapping[Cell, Path], options: Options
) -> None:
    """The scores of both epochs; development data miss nothing, as nobody knows beforehand what will be missing."""
    system, arrays = fitted.system, {cell: truth(dev, test) for cell, test in tests.items()}
    last_is_best = fitted.history.dev_auc[-1] == max(fitted.history.dev_auc)
    states = {"last": {key: value.clone() for key, value in system.state_dict().items()}, "best": fitted.best}
    for epoch in EPOCHS[:1] if last_is_best else EPOCHS:
        system.load_state_dict(states[epoch])
        known = score(system, dev, options)[0].numpy()
        for cell, test in tests.items():
            scores, trust = score(system, test, options, cell.missing)
            arrays[cell] |= {f"{epoch} dev": known, f"{epoch} test": scores.numpy()}
            if epoch == "last":
                arrays[cell] |= {f"confidence {m}": c.numpy().astype(np.float16) for m, c in trust.items()}
    system.load_state_dict(states["last"])
    for cell, found in arrays.items():
        if last_is_best:
            found |= {f"best {part}": found[f"last {part}"] for part in ("dev", "test")}
        with whole(files[cell]) as partial:
            np.savez_compressed(partial, **found)  # pyright: ignore[reportArgumentType]


def truth(dev: Samples, test: Samples) -> dict[str, np.ndarray]:
    """Labels, kinds and persons of both."""
    return {
        f"{name} {what}": np.asarray(value)
        for name, samples in (("dev", dev), ("test", test))
        for what, value in (("live", samples.live), ("kind", samples.kind_names), ("identity", samples.identity))
    }


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


def load(unit: Unit, cell: Cell, out: Path) -> Iterator[Result]:
    """The results of a unit on a cell, one an epoch; none if it has not run."""
    path = unit.scores(cell, out)
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
    with np.load(unit.scores(cell, out)) as file:
        named = {name: file[name] for name in file.files if name.startswith("confidence ")}
    return {name.removeprefix("confidence "): torch.from_numpy(x.astype(np.float32)) for name, x in named.items()}
