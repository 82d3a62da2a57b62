"""The published list files of CASIA-SURF (S), CeFA (C), WMCA (W) and PADISI-USC (P), and the defects they come with.

S, C and W have a line ``rgb depth ir label`` a sample, P has ``name.npz<TAB>label``; label 1 is LIVE in all four. The
PADISI data set itself says the opposite: a P list whose labels are ``True`` and ``False``, as in its own ground-truth
table, is read with True = ATTACK, and the report says so. Endings of lines are mixed and the last newline may be
missing. Duplicated rows are dropped and counted; rows whose files are missing are skipped with a message that names
list and line; WMCA rows whose frames do not belong together are kept and reported; :func:`overlap` finds rows and
people that two lists share. The images are read by ``images``.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from os.path import isfile  # False for a name that is too long, where Path.is_file raises
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .codes import describe_path
from .published import SHOWN, ListReport, printable

LAYOUTS = ("S", "C", "W", "P")
KNOWN_MISMATCHES = (("100_03_015_2_10", "0012"), ("101_06_067_1_02", "0020"))  # said in the WMCA lists' own README
_LABELS = {"1": True, "0": False}
_PADISI_LABELS = {"False": True, "True": False}  # the data set's own sign: True is an attack


class Record(NamedTuple):
    """One row: where its images are and what they show."""

    layout: str
    list: Path
    line: int  # from 1
    rgb: Path
    depth: Path
    infrared: Path  # for PADISI all three are one .npz
    live: bool
    kind: str
    subject: str  # "" where the row does not say

    @property
    def source(self) -> str:
        """The list file and line, for messages."""
        return f"{self.list}:{self.line}"


class _Row(NamedTuple):
    line: int
    names: tuple[str, ...]
    label: str


def read_list(path: Path | str, root: Path | str, layout: str) -> tuple[list[Record], ListReport]:
    """The records of one list file whose image files exist below `root`, and a report on the rest."""
    path, root = Path(path), Path(root)
    rows = list(_rows(path, layout))
    if not root.is_dir():
        raise FileNotFoundError(f"root: expected an existing folder, found {root}")
    trials = _trials(root) if layout == "P" else {}
    meaning = _PADISI_LABELS if any(row.label in _PADISI_LABELS for row in rows) else _LABELS
    seen: dict[tuple[str, ...], _Row] = {}
    records, missing, mismatched, duplicates = [], [], [], 0
    listed, codes, signs = Counter(), Counter(), Counter()
    for row in rows:
        source = f"{path}:{row.line}"
        if row.label not in meaning:
            raise ValueError(f"{source}: expected label True or False, as in other rows, found {row.label!r}")
        live = meaning[row.label]
        try:
            files = [_below(root, name) for name in row.names]
            told = describe_path(row.names[0], layout, live)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        signs[live] += 1
        listed[told.kind] += 1
        if not live:
            codes[told.code] += 1
        first = seen.setdefault(row.names, row)
        if first is not row:
            if first.label != row.label:
                raise ValueError(f"{source}: expected label {first.label}, as in line {first.line}, found {row.label}")
            duplicates += 1
            continue
        if layout == "P":
            files = [files[0] if isfile(files[0]) else trials.get(files[0].stem, files[0])] * 3
        absent = next((file for file in files if not isfile(file)), None)
        if absent:
            missing.append(printable(f"{source}: expected a file, found nothing at {absent}"))
            continue
        if layout == "W" and len({PurePosixPath(name).stem for name in row.names}) > 1:
            known = any(video in row.names[0] and files[0].stem == frame for video, frame in KNOWN_MISMATCHES)
            mismatched.append(f"{source}: {' '.join(row.names)}{' (a known one)' if known else ''}")
        records.append(Record(layout, path, row.line, *files, live=live, kind=told.kind, subject=told.subject))
    notes = ["labels are True and False: read as PADISI's own, True = attack"] * (meaning is _PADISI_LABELS)
    report = ListReport(
        path, layout, (signs[True], signs[False]), dict(listed), dict(codes), count_kinds(r.kind for r in records),
        duplicates, tuple(missing), (), tuple(mismatched), tuple(notes),
    )  # fmt: skip
    return records, report


def overlap(lists: Mapping[str, Path | str], layout: str) -> str:
    """What the lists of one data set share, a line for each pair that does; "" if none. Keys are names to print.

    The validation and test lists of CeFA share one row and one person.
    """
    rows, people = {}, {}
    for name, path in lists.items():
        found = list(_rows(Path(path), layout))
        rows[name] = {row.names for row in found}
        people[name] = {describe_path(row.names[0], layout, row.label == "1").subject for row in found} - {""}
    lines = []
    for a, b in combinations(lists, 2):
        both = (
            _some({names[0] for names in rows[a] & rows[b]}, "row", "rows"),
            _some(people[a] & people[b], "person", "people"),
        )
        told = [words for words in both if words]
        if told:
            lines.append(f"{layout}: {a} and {b} share {' and '.join(told)}")
    return "\n".join(lines)


def count_kinds(kinds: Iterator[str] | list[str]) -> dict[str, int]:
    """How many of each kind, live first."""
    return dict(sorted(Counter(kinds).items(), key=lambda item: item[0] != "live"))


def _some(found: set[str], one: str, many: str) -> str:
    """How many, and the first few; "" for none."""
    names = ", ".join(map(printable, sorted(found)[:SHOWN])) + (", …" if len(found) > SHOWN else "")
    return f"{len(found)} {one if len(found) == 1 else many} ({names})" if found else ""


def _rows(path: Path, layout: str) -> Iterator[_Row]:
    """The rows of a list file; backslashes in names become slashes."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, found {layout!r}")
    count, separator, form = (2, "\t", "name.npz<TAB>label") if layout == "P" else (4, " ", "rgb depth ir label")
    labels = {**_LABELS, **_PADISI_LABELS} if layout == "P" else _LABELS
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = text.strip().split(separator)
        if fields == [""]:
            continue
        if len(fields) != count or fields[-1] not in labels:
            raise ValueError(f"{path}:{line}: expected a row '{form}' with label 0 or 1, found {text.strip()[:200]!r}")
        yield _Row(line, tuple(name.replace("\\", "/") for name in fields[:-1]), fields[-1])


def _below(root: Path, name: str) -> Path:
    """The file `name` of a list, which may not leave `root`; a link there is followed, as the list did not make it."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"expected a path below the root, found {name!r}")
    return root / pure


def _trials(root: Path) -> dict[str, Path]:
    """PADISI files by trial id: they are released as ID_<transaction>_<trial>_<name>.npz."""
    found: dict[str, Path] = {}
    for file in sorted(root.rglob("ID_*.npz")):
        parts = file.stem.split("_")
        if len(parts) >= 3:
            found.setdefault(parts[2], file)
    return found
