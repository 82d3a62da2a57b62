"""What the study prints: a table for each data set and optimizer, and one of all."""

from collections import Counter
from typing import Any

from instruments.report import Report

from .methods import BASELINES, METHODS, SYSTEMS
from .sets import Multimodal
from .verdicts import Difference, difference
from .work import Results, grid, key

MEASURES = ("accuracy", "one missing", "weak probe")
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

    def values(self, system: str, measure: str = "accuracy", *, tuned: bool = False) -> list[float] | None:
        """Of "accuracy", "one missing" or "weak probe" (not of tuned ones), division by division."""
        rows = self.tuned(system) if tuned else self.default(system)
        if rows is None or (measure == "weak probe" and tuned):
            return None
        if measure == "accuracy":
            return [row["accuracy"] for row in rows]
        if measure == "one missing":
            return [mean([*row["missing"].values()]) for row in rows]
        weak = self.weak()
        return None if weak is None else [row["probe"][weak] for row in rows]

    def against(self, system: str, other: str, measure: str = "accuracy", *, tuned: bool = False) -> Difference | None:
        ours, theirs = (self.values(s, measure, tuned=tuned) for s in (system, other))
        return None if ours is None or theirs is None else difference(ours, theirs, self.tested)

    def weak(self) -> str | None:
        """The modality whose encoder loses most in joint training, against itself alone."""
        joint, alone = self.default("joint"), self.default("ensemble")
        if joint is None or alone is None:
            return None
        gap = {
            m: mean([r["probe"][m] - s["probe"][m] for r, s in zip(joint, alone, strict=True)]) for m in self.data.views
        }
        return min(gap, key=lambda m: gap[m])

    def line(self, system: str) -> list[str] | None:
        """A row under HEADER."""
        found = self.values(system)
        if found is None:
            return None
        nothing = {"joint": (2, 3, 8, 9), "joint + unimodal": (4,)}.get(system, ())  # no difference to itself
        to_joint, best = self.against(system, "joint"), self.against(system, "joint", tuned=True)
        cells = [
            system,
            shown(found),
            str(to_joint or ""),
            "" if to_joint is None else to_joint.verdict,
            str(self.against(system, "joint + unimodal") or ""),
            shown(self.values(system, "one missing")),
            shown(self.values(system, "weak probe")),
            shown(self.values(system, tuned=True)),
            str(best or ""),
            "" if best is None else best.verdict,
        ]
        return ["" if i in nothing else cell for i, cell in enumerate(cells)]


def show(report: Report, table: Table) -> None:
    """One data set with one optimizer, as far as it has come."""
    data, optimizer, seeds, weak = table.data, table.optimizer, table.seeds, table.weak()
    if weak is None:
        return
    random = table.rows("random", {}, 1.0)
    untrained = "" if random is None else f"; of an untrained encoder {mean([r['probe'][weak] for r in random]):.1f}"
    lines = [line for line in map(table.line, SYSTEMS) if line is not None]
    report.table(
        f"{data.name} ({data.note}), {optimizer}, {len(seeds)} divisions; weak probe: of {weak}'s encoder{untrained}",
        HEADER,
        lines,
    )
    for system in SYSTEMS:
        for measure in MEASURES:
            report.keep(data.name, optimizer, system, measure, table.values(system, measure) or [])


def overview(report: Report, tables: list[Table], measure: str, *, tuned: bool) -> None:
    """All sets and optimizers at a glance: the difference to joint training, and a mark where the interval says so."""
    marks = {"gain": " ▲", "loss": " ▼", "open": "", "no gain": " ·"}
    lines = []
    for system in list(SYSTEMS)[1:]:
        found = [table.against(system, "joint", measure, tuned=tuned) for table in tables]
        if any(d is not None for d in found):
            lines.append([system, *("" if d is None else f"{d.mean:+.1f}{marks[d.verdict]}" for d in found)])
    if lines:
        report.table(
            f"{measure} − joint training's, {'tuned' if tuned else 'default'}: ▲ gain, ▼ loss, · no gain of a point",
            ("system", *(f"{table.data.name}, {table.optimizer}" for table in tables)),
            lines,
        )


def summary(report: Report, tables: list[Table]) -> None:
    """How many methods gain, over which baseline."""
    lines = []
    for table in tables:
        for tuned in (False, True):
            found = {s: table.values(s, tuned=tuned) for s in BASELINES}
            means = {s: mean(values) for s, values in found.items() if values is not None}
            if len(means) < len(BASELINES):
                continue
            best = max(means, key=lambda s: means[s])
            cells = []
            for other in ("joint", "joint + unimodal", best):
                against = [table.against(m, other, tuned=tuned) for m in METHODS]
                verdicts = Counter(d.verdict for d in against if d is not None)
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


def shown(values: list[float] | None) -> str:
    """The mean."""
    return "" if values is None else f"{mean(values):.1f}"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
