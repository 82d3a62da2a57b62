"""Where the numbers go: printed at once; all raw rounds to ``NAME.csv``; the tables to ``NAME.md``."""

import csv
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name, as Linux tells it, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values: Sequence[float]) -> str:
    """The median, and the quartiles in brackets."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """Median and quartiles of the ratios, round by round."""
    return spread([a / b for a, b in zip(values, base, strict=True)])


def share(values: Sequence[float], base: Sequence[float]) -> str:
    """The same in per cent."""
    return spread([100 * a / b for a, b in zip(values, base, strict=True)])


class Report:
    """Collects what the sections of the benchmark `name` say."""

    def __init__(self, name: str) -> None:
        self.name = name
        threads, version = torch.get_num_threads(), torch.__version__
        self.lines: list[str] = []
        self.rows: list[tuple[str, str, str, str, int, float]] = []
        self.say(f"{date.today()}, {processor()}, {threads} threads, torch {version}")

    def say(self, text: str = "") -> None:
        """One line, printed and kept."""
        print(text, flush=True)
        self.lines.append(text)

    def keep(self, section: str, case: str, variant: str, measure: str, values: Iterable[float]) -> None:
        """Raw numbers, one a round."""
        self.rows += [(section, case, variant, measure, i, float(value)) for i, value in enumerate(values)]

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: aligned in print, Markdown in the file. The first column is text, the others are numbers."""
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

        def line(row: Sequence[str]) -> str:
            first, *others = zip(row, widths, strict=True)
            return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

        print(f"\n{title}", *(line(row) for row in (header, *rows)), sep="\n", flush=True)
        marks = ["---", *["---:"] * (len(header) - 1)]
        self.lines += ["", title, "", *("| " + " | ".join(row) + " |" for row in (header, marks, *rows)), ""]

    def write(self, out: Path) -> None:
        """Write the raw numbers and the tables."""
        out.mkdir(parents=True, exist_ok=True)
        with (out / f"{self.name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("section", "case", "variant", "measure", "round", "value"))
            writer.writerows(self.rows)
        (out / f"{self.name}.md").write_text("\n".join(self.lines).strip() + "\n")
