"""Which trainings the study is made of, on several processes, and a file that remembers those that are done."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from .methods import SYSTEMS
from .sets import SETS
from .training import REVISION, Run, Solo, hits, measure, probe, trained

RATES = (1.0, 3.0)  # times the learning rate, beside two strengths
RATES_ALONE = (1.0, 2.0, 3.0, 10.0)  # for a system without a strength: as many trials


class Unit(NamedTuple):
    """Some trainings on one division of one data set, which share the encoders that were trained alone."""

    data: str
    optimizer: str
    seed: int
    probes: bool
    trials: list[tuple[str, dict[str, Any], float]]  # system, settings, factor of the learning rate


def grid(system: str) -> list[tuple[dict[str, Any], float]]:
    """Four trials for everybody; the first is the default."""
    choice = SYSTEMS[system]
    if choice.other is None:
        return [(choice.default, rate) for rate in RATES_ALONE]
    return [(settings, rate) for settings in (choice.default, choice.other) for rate in RATES]


def key(data: str, optimizer: str, seed: int, system: str, settings: dict[str, Any], rate: float) -> str:
    return json.dumps([REVISION, data, optimizer, seed, system, settings, rate], ensure_ascii=False)


class Results:
    """One line a training. A study that was cut short goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            path.write_text("".join(whole))  # without a line that was cut short
            self.rows = {row["key"]: row for row in map(json.loads, whole)}

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            for row in rows:
                self.rows[row["key"]] = row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def best(self, data: str, optimizer: str, system: str, seed: int) -> dict[str, Any] | None:
        """What was trained with the trial of the highest accuracy on the validation part of the division."""
        keys = [key(data, optimizer, seed, system, *trial) for trial in grid(system)]
        if not all(k in self.rows for k in keys):
            return None
        return max((self.rows[k] for k in keys), key=lambda row: row["validation"])  # the first of several


def carry_out(unit: Unit) -> list[dict[str, Any]]:
    """All trainings of a unit."""
    torch.set_num_threads(1)
    data = SETS[unit.data]()
    split = data.split(unit.seed)
    rows = []

    def row(system: str, settings: dict[str, Any], rate: float, **found: Any) -> None:
        rows.append({"key": key(unit.data, unit.optimizer, unit.seed, system, settings, rate), **found})

    run = Run(data, split, unit.optimizer, unit.seed)
    if unit.probes:
        row("random", {}, 1.0, probe=probe(run))
    method, _ = trained(run, SYSTEMS["ensemble"].make, {})
    z = run.features(torch.arange(len(split.labels)))
    with torch.no_grad():
        logits = run.model.alone(z)
    y = split.labels[split.val]
    solo = Solo(z, logits, {m: hits(o[split.val], y) for m, o in logits.items()})
    for system, settings, rate in unit.trials:
        run = Run(data, split, unit.optimizer, unit.seed, rate, solo)
        method, seconds = trained(run, SYSTEMS[system].make, settings)
        row(system, settings, rate, **measure(run, method, seconds, probes=unit.probes)._asdict())
    return rows


def defaults(data: str, optimizer: str, seeds: range, systems: list[str]) -> Iterator[Unit]:
    for seed in seeds:
        yield Unit(data, optimizer, seed, True, [(s, *grid(s)[0]) for s in systems])


def others(data: str, optimizer: str, seeds: range, systems: list[str]) -> Iterator[Unit]:
    """What tuning tries beside the defaults."""
    for seed in seeds:
        yield Unit(data, optimizer, seed, False, [(s, *trial) for s in systems for trial in grid(s)[1:]])


def left(unit: Unit, results: Results) -> Unit:
    """Without what is done."""
    trials = [t for t in unit.trials if key(unit.data, unit.optimizer, unit.seed, *t) not in results.rows]
    return unit._replace(trials=trials)


def complete(units: Iterator[Unit], results: Results, processes: int, name: str) -> None:
    """Carry out what is left, in pieces that keep all processes busy."""
    todo = [unit for unit in (left(each, results) for each in units) if unit.trials]
    size = max(1, -(-sum(len(unit.trials) for unit in todo) // (8 * processes)))
    pieces = [u._replace(trials=u.trials[i : i + size]) for u in todo for i in range(0, len(u.trials), size)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        futures = [pool.submit(carry_out, piece) for piece in pieces]
        for future in tqdm(as_completed(futures), name, len(pieces), disable=not pieces, mininterval=10):
            results.add(future.result())
