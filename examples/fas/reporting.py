"""What is told of a finished study: tables to the terminal, a CSV file, one HTML page with the pictures."""

import os
import platform
import sys
from datetime import date

import torch

from . import scores
from .evaluation.metrics import eer_threshold
from .evaluation.results import Result
from .output.html import write_html
from .output.layout import as_text
from .output.sheet import write_csv
from .output.study import Exhibit, exhibit_section, glossary_section, results_sections
from .output.tables import ablation_table, interval_table, main_table, relative_drop
from .plan import Plan, Unit
from .protocols import gather
from .systems import ABLATION, LATE_MEAN

BASELINE, FULL = "ViT", "MMDG"


def report(plan: Plan, results: list[Result], took: str) -> None:
    """Tables to the terminal; all of it, with pictures, to files."""
    without = [name for name in ABLATION if name in plan.systems]
    names = {result.system for result in results}
    for protocol in dict.fromkeys(cell.protocol for cell in plan.cells):
        part = [result for result in results if result.cell.protocol == protocol]
        tables = [main_table(part)]
        if {BASELINE, FULL} <= names:
            tables.append(interval_table(part, BASELINE))
            print(relative_drop(part, BASELINE, FULL)[1])
        if without:
            tables.append(ablation_table(part, FULL, without))
        for table in tables:
            print(f"\n{as_text(table)}")
    write_csv(plan.out / "results.csv", results)

    sections = []
    if {BASELINE, FULL} <= names:
        sections += results_sections(results, baseline=BASELINE, full=FULL, without=without)
    shown = FULL if FULL in names else next(iter(names))
    sections += [exhibit_section(exhibit(plan, results), plan.out / "pictures", shown=shown), glossary_section()]
    title = f"Face anti-spoofing: {', '.join(dict.fromkeys(cell.protocol for cell in plan.cells))}"
    write_html(plan.out / "report.html", title=title, facts=facts(plan, took), sections=sections)
    print(f"\n{plan.out}/report.html (pictures beside it), {plan.out}/results.csv   {took} in all")


def exhibit(plan: Plan, results: list[Result]) -> Exhibit:
    """The first cell and seed, to look at."""
    cell, seed = plan.cells[0], plan.seeds[0]
    here = {r.system: r for r in results if (r.cell, r.seed, r.epoch) == (cell, seed, "last")}
    trained = {name: Unit(name, seed, (cell,)) for name in here if name != LATE_MEAN}
    histories = {name: scores.load_history(unit.folder(plan.out)) for name, unit in trained.items()}
    trust = {name: scores.confidences(unit, cell, plan.out) for name, unit in trained.items()}
    return Exhibit(
        title=f"{cell.protocol}, {cell.name}, seed {seed}",
        test=gather(cell, lambda domain, split: plan.source.get(seed, domain, split))[2],
        dev_thresholds={name: eer_threshold(*r.dev[:2]) for name, r in here.items()},
        scores={name: r.test.scores for name, r in here.items()},
        uncertainty={name: {m: 1 - c.numpy() for m, c in by.items()} for name, by in trust.items() if by},
        curves={name: {m: smooth(v) for m, v in h.losses.items()} for name, h in histories.items() if h.losses},
        conflicts={name: h.conflicts for name, h in histories.items() if h.conflicts},
    )


def facts(plan: Plan, took: str) -> dict[str, str]:
    """What somebody who did not run it has to know."""
    o = plan.options
    return {
        "command": "python " + " ".join(sys.argv),
        "date and time taken": f"{date.today().isoformat()}, {took}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, device {o.device}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "data": str(plan.source),
        "training": f"{plan.backbone} backbone, {o.epochs} epochs, batch {o.batch}, AdamW {o.lr:g} with cosine, half "
        f"precision {o.amp}, infrared as {' + '.join(o.infrared)}, seeds {', '.join(map(str, plan.seeds))}",
        "labels": "live is positive, a higher score is more live",
        "thresholds": "equal error rate of the development sets of the sources; oracle figures are labelled so",
        "epoch": "the last one, unless a table says: best on development data",
        "missing modality": "black before normalisation, in training and testing alike",
    }


def smooth(values: list[float], width: int = 15) -> list[float]:
    """A running mean, so that a curve of noisy batches can be read."""
    return [sum(values[max(0, i - width) : i + 1]) / len(values[max(0, i - width) : i + 1]) for i in range(len(values))]
