"""A table as plain rows of text, for the terminal and for Markdown."""

from collections.abc import Sequence
from typing import NamedTuple

from fas.evaluation.intervals import Interval


class Table(NamedTuple):
    """What a table says; how it looks is the reader's part."""

    title: str
    columns: Sequence[str]  # the first names the rows
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_text(table: Table) -> str:
    """Columns of fixed width; the first is flush left, the others flush right."""
    grid = [table.columns, *table.rows]
    widths = [max(len(row[k]) for row in grid) for k in range(len(table.columns))]
    pads = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    lines = ["  ".join(pad(cell, w) for pad, cell, w in zip(pads, row, widths, strict=True)) for row in grid]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([table.title, rule, lines[0], rule, *lines[1:], rule, *([table.note] if table.note else [])])


def as_markdown(table: Table) -> str:
    """A GitHub table with its title above and its note below."""
    grid = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in grid]
    lines.insert(1, "|" + " :-- |" + " --: |" * (len(table.columns) - 1))
    return "\n".join([f"**{table.title}**", "", *lines, *(["", table.note] if table.note else [])])


def percent(value: float, *, sign: bool = False) -> str:
    """A share in percent, one decimal, with a true minus."""
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return text.replace("-", "−")


def spread(found: Interval) -> str:
    """Mean ± standard deviation over the seeds; of a single seed the figure alone."""
    return percent(found.mean) if found.sd != found.sd else f"{percent(found.mean)} ± {percent(found.sd)}"


def limits(found: Interval, *, sign: bool = False) -> str:
    """The interval, "12.0 to 15.1"."""
    return f"{percent(found.low, sign=sign)} to {percent(found.high, sign=sign)}"
