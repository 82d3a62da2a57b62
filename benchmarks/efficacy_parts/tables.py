"""What the study prints: a table for each data set and optimizer, and one of all."""

from collections import Counter
from typing import Any

from instruments.report import Report

from .methods import BASELINES, METHODS, SYSTEMS
from .sets import Multimodal
from .verdicts import Difference, difference
from .work import Results, grid, key

HEADER = ("system", "accuracy, %", "− joint", "verdict", "− joint + unimodal", "one missing", "weak probe", "tuned",
          "tuned − joint, tuned", "verdict")  # fmt: skip


class Table:
    """All that was found on one data set with one optimizer."""

    def __init__(self, results: Results, data: Multimodal, optimizer: str, seeds: range) -> None:
        self.results, self.data, self.optimizer, self.seeds = results, data, optimizer, seeds
        splits = [data.split(seed) for seed in seeds]
        self.tested = mean([len(s.test) / len(s.train) for s in splits])

    def rows(self, system: str, settings: dict[str, Any], rate: float) -> list[dict[str, Any]] | None:
        keys = [key(self.data.name, self.optimizer, seed, system, settings, rate) for seed in self.seeds]
        return [self.results.rows[k] for k in keys] if all(k in self.results.rows for k in keys) else None

    def default(self, system: str) -> list[dict[str, Any]] | None:
        return self.rows(system, *grid(system)[0])

    def tuned(self, system: str) -> list[dict[str, Any]] | None:
        rows = [self.results.best(self.data.name, self.optimizer, system, seed) for seed in self.seeds]
        found = [row for row in rows if row is not None]
        return found if len(found) == len(rows) else None

    def against(self, system: str, other: str, *, tuned: bool = False) -> Difference | None:
        """The difference in accuracy."""
        ours, theirs = (self.tuned(s) if tuned else self.default(s) for s in (system, other))
        return None if ours is None or theirs is None else difference(accuracies(ours), accuracies(theirs), self.tested)

    def weak(self) -> str:
        """The modality whose encoder loses most in joint training, against itself alone."""
        joint, alone = self.default("joint"), self.default("ensemble")
        assert joint is not None
        assert alone is not None
        gap = {
            m: mean([r["probe"][m] for r in joint]) - mean([r["probe"][m] for r in alone]) for m in joint[0]["probe"]
        }
        return min(gap, key=lambda m: gap[m])

    def line(self, system: str, weak: str) -> list[str] | None:
        found = self.default(system)
        if found is None:
            return None
        to_joint, to_both = self.against(system, "joint"), self.against(system, "joint + unimodal")
        tuned, best = self.tuned(system), self.against(system, "joint", tuned=True)
        same = system == "joint"
        return [
            system,
            f"{mean(accuracies(found)):.1f}",
            "" if same else str(to_joint),
            "" if same or to_joint is None else to_joint.verdict,
            "" if system == "joint + unimodal" else str(to_both),
            f"{mean([mean([*r['missing'].values()]) for r in found]):.1f}",
            f"{mean([r['probe'][weak] for r in found]):.1f}",
            "" if tuned is None else f"{mean(accuracies(tuned)):.1f}",
            "" if same or best is None else str(best),
            "" if same or best is None else best.verdict,
        ]


def show(report: Report, table: Table) -> None:
    """One data set with one optimizer, as far as it has come."""
    data, optimizer, seeds = table.data, table.optimizer, table.seeds
    if table.default("joint") is None or table.default("ensemble") is None:
        return
    weak = table.weak()
    random = table.rows("random", {}, 1.0)
    untrained = "" if random is None else f"; of an untrained encoder {mean([r['probe'][weak] for r in random]):.1f}"
    lines = [line for line in (table.line(system, weak) for system in SYSTEMS) if line is not None]
    report.table(
        f"{data.name} ({data.note}), {optimizer}, {len(seeds)} divisions; weak probe: of {weak}'s encoder{untrained}",
        HEADER,
        lines,
    )
    for system in SYSTEMS:
        found = table.default(system)
        if found is not None:
            report.keep(data.name, optimizer, system, "accuracy", accuracies(found))


def overview(report: Report, tables: list[Table], *, tuned: bool) -> None:
    """All sets and optimizers at a glance: the difference to joint training, and a mark where the interval says so."""
    marks = {"gain": " ▲", "loss": " ▼", "open": "", "no gain": " ·"}
    lines = []
    for system in list(SYSTEMS)[1:]:
        found = [table.against(system, "joint", tuned=tuned) for table in tables]
        if any(d is not None for d in found):
            lines.append([system, *("" if d is None else f"{d.mean:+.1f}{marks[d.verdict]}" for d in found)])
    if lines:
        report.table(
            f"accuracy − joint training's, {'tuned' if tuned else 'default'}: ▲ gain, ▼ loss, · no gain of a point",
            ("system", *(f"{table.data.name}, {table.optimizer}" for table in tables)),
            lines,
        )


def summary(report: Report, tables: list[Table]) -> None:
    """How many methods gain, over which baseline."""
    lines = []
    for table in tables:
        for tuned in (False, True):
            baselines = {s: table.tuned(s) if tuned else table.default(s) for s in BASELINES}
            means = {s: mean(accuracies(rows)) for s, rows in baselines.items() if rows is not None}
            if len(means) < len(BASELINES):
                continue
            best = max(means, key=lambda s: means[s])
            cells = []
            for other in ("joint", "joint + unimodal", best):
                verdicts = Counter(
                    d.verdict for m in METHODS if (d := table.against(m, other, tuned=tuned)) is not None
                )
                cells.append(" / ".join(str(verdicts[word]) for word in ("gain", "open", "no gain", "loss")))
            name = f"{table.data.name}, {table.optimizer}, {'tuned' if tuned else 'default'}"
            lines.append([name, *cells[:2], best, cells[2]])
    if lines:
        report.table(
            "methods by their difference in accuracy: gain / open / no gain / loss. By chance alone one in forty would "
            "seem a gain over joint training",
            ("", "over joint", "over joint + unimodal", "best baseline", "over the best baseline"),
            lines,
        )


def accuracies(rows: list[dict[str, Any]]) -> list[float]:
    return [row["accuracy"] for row in rows]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
