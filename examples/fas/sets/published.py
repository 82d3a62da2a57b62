"""How many rows the published lists have, and what became of the rows of the list at hand, to print.

A list of 5000 missing files is told in seven lines: the first five messages, and their number.
"""

from pathlib import Path
from typing import NamedTuple

ROWS = {  # (live, attack) of the full lists
    "S": {"train": (900, 5397), "validation": (300, 1800), "test": (1800, 10764)},
    "C": {"train": (1200, 3600), "validation": (601, 1800), "test": (1200, 5539)},
    "W": {"train": (372, 1323), "validation": (324, 1347), "test": (345, 1326)},
    "P": {"train": (597, 493), "validation": (145, 127), "test": (363, 304)},
}
KINDS = {  # rows of single kinds, where they were counted; the attack 02_e_b of S has 897 rows, the others 900
    ("S", "train"): {"cut eyes": 1797, "cut eyes nose": 1800, "cut eyes nose mouth": 1800},
    ("C", "train"): {"print": 2400, "replay": 1200},
    ("C", "test"): {"rigid mask": 1759, "silicone mask": 180},
    ("W", "train"): {"paper mask": 0},
    ("W", "validation"): {"paper mask": 0},
    ("W", "test"): {"paper mask": 213},
}
DUPLICATES = {("S", "train"): 20, ("S", "test"): 56, ("C", "test"): 4}
SHOWN = 5  # messages of one sort
LONGEST = 1000  # characters of one


class ListReport(NamedTuple):
    """What became of the rows of one list."""

    path: Path
    layout: str
    rows: tuple[int, int]  # live, attack, as listed
    listed: dict[str, int]  # rows by kind, as listed
    codes: dict[str, int]  # attack rows by the data set's own code
    kept: dict[str, int]  # samples by kind
    duplicates: int = 0
    missing: tuple[str, ...] = ()  # rows without a file
    unreadable: tuple[str, ...] = ()  # rows with a file that is no image
    mismatched: tuple[str, ...] = ()  # kept, though their frames do not belong together
    notes: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """A message for each row that could not be read."""
        return self.missing + self.unreadable

    def published(self) -> str:
        """How the rows compare with the published table."""
        table = ROWS[self.layout]
        for split, rows in table.items():
            if rows == self.rows:
                return f"as many rows as the published {split} list" + self._differences(split)
            if rows == self.rows[::-1]:
                return f"live and attack rows of the published {split} list the other way round: are labels reversed?"
        known = ", ".join(f"{split} {live}/{attack}" for split, (live, attack) in table.items())
        return f"not a full published list (live/attack rows of those: {known})"

    def _differences(self, split: str) -> str:
        place = self.layout, split
        counts = [(kind, n, self.listed.get(kind, 0)) for kind, n in KINDS.get(place, {}).items()]
        counts.append(("duplicated", DUPLICATES.get(place, 0), self.duplicates))
        return "".join(f", but {found} {what} where that has {n}" for what, n, found in counts if found != n)

    def __str__(self) -> str:
        """A few lines to print."""
        lines = [
            f"{self.path}: {sum(self.rows)} rows ({self.rows[0]} live, {self.rows[1]} attack); {self.published()}",
            f"  kept: {_counts(self.kept) or 'nothing'}",
            f"  dropped: {self.duplicates} duplicated, {len(self.missing)} without a file, "
            f"{len(self.unreadable)} unreadable",
        ]
        if self.layout == "S":  # two codes a kind: still and bent
            lines.append(f"  attack rows by code: {_counts(dict(sorted(self.codes.items()))) or 'none'}")
        lines += [f"  note: {note}" for note in self.notes]
        lines += _first(self.missing, "skipped")
        lines += _first(self.unreadable, "skipped")
        lines += _first(self.mismatched, "kept, but frames do not belong together:")
        return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """The same in one line that is not too long, without what a terminal would obey: a list is written by others."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:LONGEST])


def _counts(table: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in table.items())


def _first(messages: tuple[str, ...], what: str) -> list[str]:
    """The first few messages, and how many there are."""
    lines = [f"  {what} {message}" for message in messages[:SHOWN]]
    return lines + [f"  … and {len(messages) - SHOWN} more like these"] * (len(messages) > SHOWN)
