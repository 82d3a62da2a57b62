"""Tables of a study: the papers' layout, intervals, what each part is worth. All figures in percent.

One row a system, one column a cell (CPS→W, or "D missing" as a mean over the targets), and the average over all cells.
HTER is taken at the threshold of the development sets. A difference is called one only if its 95 % interval leaves
out 0.
"""

from collections.abc import Sequence

from fas.evaluation import weighted
from fas.evaluation.intervals import Interval, Sampled, check_same_tests, difference, drop, interval, sample, summary
from fas.evaluation.results import Result
from fas.protocols import Cell

from .layout import Table, limits, percent, spread

_LETTERS = {"rgb": "RGB", "depth": "D", "infrared": "I"}
_EPOCHS = {"last": "last epoch", "best": "epoch that was best on development data"}
_NO_DIFFERENCE = "no difference shown"


def column(cell: Cell) -> str:
    """The heading under which papers print a cell: what is missing or left out, or else sources → targets."""
    missing = " and ".join(_LETTERS[name] for name in cell.missing)
    parts = [cell.left_out] if cell.left_out else []
    parts += [f"{missing} missing"] if missing else []
    return ", ".join(parts) or cell.name


def chosen(results: Sequence[Result], epoch: str) -> dict[str, list[Result]]:
    """The results of one epoch, of one protocol, by system and in the order of their first coming."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        if result.epoch == epoch:
            rows.setdefault(result.system, []).append(result)
    found = sorted({result.cell.protocol for part in rows.values() for result in part})
    if len(found) != 1:
        raise ValueError(f"results: expected one protocol with the epoch {epoch!r}, found {', '.join(found) or 'none'}")
    return rows


def main_table(results: Sequence[Result], *, epoch: str = "last") -> Table:
    """HTER / AUC of each system in each column, mean ± standard deviation over the seeds; "–" where not measured."""
    rows = chosen(results, epoch)
    columns: dict[str, dict[Cell, None]] = {}
    for part in rows.values():
        for result in part:
            columns.setdefault(column(result.cell), {})[result.cell] = None
    groups = list(columns.values())
    if len(groups) > 1:
        groups.append({cell: None for group in groups for cell in group})
    lines = [[system, *(_pair(part, cells) for cells in groups)] for system, part in rows.items()]
    protocol = next(iter(columns.values())).popitem()[0].protocol
    return Table(
        f"{protocol}: HTER ↓ / AUC ↑ in %, {_EPOCHS[epoch]}",
        ["system", *columns, *(["average"] if len(groups) > len(columns) else [])],
        lines,
        f"Mean ± standard deviation over {seeds(rows)}. HTER at the EER threshold of the development sets.",
    )


def _pair(results: Sequence[Result], cells: dict[Cell, None]) -> str:
    part = [result for result in results if result.cell in cells]
    if {result.cell for result in part} != set(cells):
        return "–"
    once = 1  # the seeds' own figures need no draws
    return " / ".join(spread(interval(part, of, replicates=once)) for of in (weighted.hter, weighted.auc))


def seeds(rows: dict[str, list[Result]]) -> str:
    """How many seeds there are, in words."""
    counts = sorted({len({result.seed for result in part}) for part in rows.values()})
    return " to ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")


def interval_table(results: Sequence[Result], baseline: str, *, epoch: str = "last") -> Table:
    """The average of each system with its 95 % interval, and its difference to `baseline` on the same draws."""
    rows = chosen(results, epoch)
    _known("baseline", baseline, rows)
    cells = {result.cell for result in rows[baseline]}
    whole, lines = sample(rows[baseline]), []
    for system, part in rows.items():
        if {result.cell for result in part} != cells:
            lines.append([system, *["–"] * 7])  # its average is one of other cells
            continue
        hter, area = sample(part), sample(part, weighted.auc)
        line = [system, percent(summary(hter).mean), limits(summary(hter)), percent(summary(area).mean)]
        line.append(limits(summary(area)))
        if system == baseline:
            lines.append([*line, "", "", ""])
            continue
        check_same_tests(part, rows[baseline])
        gap = difference(hter, whole)
        words = ("lower error", _NO_DIFFERENCE, "higher error")[1 + gap.shows]
        lines.append([*line, percent(gap.mean, sign=True), limits(gap, sign=True), words])
    return Table(
        f"{_protocol(rows)}: average over the cells with 95 % intervals, {_EPOCHS[epoch]}",
        ["system", "HTER", "95 %", "AUC", "95 %", f"HTER − {baseline}", "95 %", "shown"],
        lines,
        "Bootstrap by person and seed, 1000 draws, differences draw by draw; thresholds are not resampled.",
    )


def ablation_table(results: Sequence[Result], full: str, without: Sequence[str], *, epoch: str = "last") -> Table:
    """What a part is worth: HTER and AUC of each system in `without`, which lacks it, minus those of `full`."""
    rows = chosen(results, epoch)
    for system in (full, *without):
        _known("without", system, rows)
    whole = [sample(rows[full], of) for of in (weighted.hter, weighted.auc)]
    lines = [[full, percent(summary(whole[0]).mean), "", "", percent(summary(whole[1]).mean), "", "", ""]]
    for system in without:
        check_same_tests(rows[system], rows[full])
        own = [sample(rows[system], of) for of in (weighted.hter, weighted.auc)]
        line, gaps = [system], [difference(a, b) for a, b in zip(own, whole, strict=True)]
        for sampled, gap in zip(own, gaps, strict=True):
            line += [percent(summary(sampled).mean), percent(gap.mean, sign=True), limits(gap, sign=True)]
        lines.append([*line, ("hurts", _NO_DIFFERENCE, "helps")[1 + gaps[0].shows]])
    return Table(
        f"{_protocol(rows)}: what each part is worth, average over the cells, {_EPOCHS[epoch]}",
        ["system", "HTER", "minus full", "95 %", "AUC", "minus full", "95 %", "the part"],
        lines,
        f"Minus full: without the part minus {full}, draw by draw. The part helps where HTER without it is higher and "
        "the interval leaves out 0. Each interval is at 95 % by itself.",
    )


def relative_drop(
    results: Sequence[Result], baseline: str, system: str, *, epoch: str = "last"
) -> tuple[Interval, str]:
    """(baseline − system)/baseline of the average HTER, and a line that says it."""
    rows = chosen(results, epoch)
    for name, given in (("baseline", baseline), ("system", system)):
        _known(name, given, rows)
    check_same_tests(rows[baseline], rows[system])
    sampled: list[Sampled] = [sample(rows[name]) for name in (baseline, system)]
    found = drop(*sampled)
    before, after = (percent(summary(part).mean) for part in sampled)
    words = ("it rises", _NO_DIFFERENCE, "it falls")[1 + found.shows]
    turned = Interval(-found.mean, found.sd, -found.high, -found.low)
    return found, (
        f"{system} against {baseline}, {_EPOCHS[epoch]}: average HTER {before} → {after} %, "
        f"{percent(turned.mean, sign=True)} % of it (95 % interval {limits(turned, sign=True)} %): {words}"
    )


def _protocol(rows: dict[str, list[Result]]) -> str:
    return next(iter(rows.values()))[0].cell.protocol


def _known(name: str, system: str, rows: dict[str, list[Result]]) -> None:
    if system not in rows:
        raise ValueError(f"{name}: expected one of {', '.join(rows)}, found {system!r}")
