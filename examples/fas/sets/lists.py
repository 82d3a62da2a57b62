"""The published list files of CASIA-SURF (S), CeFA (C), WMCA (W) and PADISI-USC (P), and the defects they come with.

S, C and W have a line ``rgb depth ir label`` a sample, P has ``name.npz<TAB>label``; label 1 is LIVE in all four (the
PADISI data set's own boolean says the opposite). Endings of lines are mixed and the last newline may be missing.
Duplicated rows are dropped and counted; rows whose files are missing are skipped with a message that names list and
line; WMCA rows whose frames do not belong together are kept and reported. The images are read by ``images``.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

LAYOUTS = ("S", "C", "W", "P")

PUBLISHED = {  # rows (live, attack) of the full lists
    "S": {"train": (900, 5397), "validation": (300, 1800), "test": (1800, 10764)},
    "C": {"train": (1200, 3600), "validation": (601, 1800), "test": (1200, 5539)},
    "W": {"train": (372, 1323), "validation": (324, 1347), "test": (345, 1326)},
    "P": {"train": (597, 493), "validation": (145, 127), "test": (363, 304)},
}

_CUTS = {"e": "cut eyes", "en": "cut eyes nose", "enm": "cut eyes nose mouth"}
_CEFA = {"3_1_2": "print", "3_2_2": "print", "3_1_4": "replay"}
WMCA_KINDS = {  # <type>_<pai>, the numbers as ranges
    "fake head": {2: [(1, 7)]},
    "paper mask": {2: [(8, 11)]},
    "rigid mask": {2: [(12, 17)], 1: [(2, 2), (13, 14)]},
    "silicone mask": {2: [(18, 18), (75, 99)]},  # flexible
    "glasses": {1: [(1, 1), (4, 7), (15, 16)]},
    "print": {3: [(1, 4), (6, 9), (11, 14)]},
    "replay": {3: [(5, 5), (10, 10), (15, 15)], 4: [(1, 18)]},
}
KNOWN_MISMATCHES = (("100_03_015_2_10", "0012"), ("101_06_067_1_02", "0020"))  # said in the WMCA lists' own README


class Record(NamedTuple):
    """One row: where its images are and what they show."""

    layout: str
    source: str  # "list file:line", for messages
    rgb: Path
    depth: Path
    infrared: Path  # for PADISI all three are one .npz
    live: bool
    kind: str
    subject: str  # "" where the row does not say


class ListReport(NamedTuple):
    """What became of the rows of one list."""

    path: Path
    layout: str
    rows: tuple[int, int]  # live, attack, as listed
    kept: dict[str, int]  # by kind
    duplicates: int
    skipped: tuple[str, ...]
    mismatched: tuple[str, ...]

    def published(self) -> str:
        """How the rows compare with the published table."""
        table = PUBLISHED[self.layout]
        for split, rows in table.items():
            if rows == self.rows:
                return f"as many rows as the published {split} list"
        known = ", ".join(f"{split} {live}/{attack}" for split, (live, attack) in table.items())
        return f"not a full published list (live/attack rows of those: {known})"

    def __str__(self) -> str:
        """A few lines to print."""
        lines = [
            f"{self.path}: {sum(self.rows)} rows ({self.rows[0]} live, {self.rows[1]} attack); {self.published()}",
            "  kept: " + (", ".join(f"{kind} {count}" for kind, count in self.kept.items()) or "nothing"),
            f"  dropped: {self.duplicates} duplicated, {len(self.skipped)} skipped",
        ]
        lines += [f"  skipped {message}" for message in self.skipped]
        lines += [f"  kept, but frames do not belong together: {message}" for message in self.mismatched]
        return "\n".join(lines)


def read_list(path: Path | str, root: Path | str, layout: str) -> tuple[list[Record], ListReport]:
    """The records of one list file whose image files exist below `root`, and a report on the rest."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, found {layout!r}")
    path, root = Path(path), Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root: expected an existing folder, found {root}")
    trials = _trials(root) if layout == "P" else {}
    seen: set[tuple[str, ...]] = set()
    records, skipped, mismatched, rows, duplicates = [], [], [], Counter(), 0
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        source = f"{path}:{number}"
        *names, label = _fields(line, layout, source)
        rows[label] += 1
        if tuple(names) in seen:
            duplicates += 1
            continue
        seen.add(tuple(names))
        files = [_below(root, name, source) for name in names]
        if layout == "P":
            stem = PurePosixPath(names[0]).stem
            files = [files[0] if files[0].is_file() else trials.get(stem, files[0])] * 3
        absent = [file for file in files if not file.is_file()]
        if absent:
            skipped.append(f"{source}: expected a file, found nothing at {absent[0]}")
            continue
        if layout == "W" and len({PurePosixPath(name).stem for name in names}) > 1:
            known = any(video in names[0] and names[0].endswith(f"{frame}.jpg") for video, frame in KNOWN_MISMATCHES)
            mismatched.append(f"{source}: {' '.join(names)}{' (a known one)' if known else ''}")
        kind, subject = _describe(names[0], layout, label == "1", source)
        records.append(Record(layout, source, *files, live=label == "1", kind=kind, subject=subject))
    kept = dict(sorted(Counter(record.kind for record in records).items(), key=lambda item: item[0] != "live"))
    report = ListReport(path, layout, (rows["1"], rows["0"]), kept, duplicates, tuple(skipped), tuple(mismatched))
    return records, report


def _fields(line: str, layout: str, source: str) -> list[str]:
    """The names and the label of a row."""
    form = "name.npz<TAB>label" if layout == "P" else "rgb depth ir label"
    fields = line.strip().split("\t" if layout == "P" else " ")
    if len(fields) != (2 if layout == "P" else 4) or fields[-1] not in ("0", "1"):
        raise ValueError(f"{source}: expected a row '{form}' with label 0 or 1, found {line.strip()!r}")
    return fields


def _below(root: Path, name: str, source: str) -> Path:
    """The file `name` of a list, which may not leave `root`."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"{source}: expected a path below the root, found {name!r}")
    return root / pure


def _trials(root: Path) -> dict[str, Path]:
    """PADISI files by trial id: they are released as ID_<transaction>_<trial>_<name>.npz."""
    found: dict[str, Path] = {}
    for file in sorted(root.rglob("ID_*.npz")):
        parts = file.stem.split("_")
        if len(parts) >= 3:
            found.setdefault(parts[2], file)
    return found


def _describe(name: str, layout: str, live: bool, source: str) -> tuple[str, str]:
    """The kind and the subject that a path tells."""
    parts = PurePosixPath(name).parts
    if layout == "P":
        return "live" if live else "attack", ""
    place = {"S": r"CLKJ_\w+", "C": r"\d_\d+_[\d_]+", "W": r"\d+_\d+_\d+_\d+_\d+"}[layout]
    at = next((i for i, part in enumerate(parts) if re.fullmatch(place, part)), None)
    if at is None:
        raise ValueError(f"{source}: expected a path of layout {layout}, with a folder like {place}, found {name!r}")
    if layout == "S":
        subject, code = parts[at], parts[at + 1].removesuffix(".rssdk")
        kind = _CUTS.get(code.split("_")[1]) if re.fullmatch(r"\d\d_\w+_[sb]", code) else None
    elif layout == "C":
        race, person, *numbers = parts[at].split("_")
        code = "_".join(numbers)
        subject = parts[at - 1] if re.fullmatch(r"[A-Z]{2}-\d+", parts[at - 1]) else f"{race}-{person}"
        masks = {"3D-Mask": "rigid mask", "Silicone-Mask": "silicone mask"}
        kind = next((masks[part] for part in parts if part in masks), _CEFA.get(code))
    else:
        client, _, _, type_, pai = parts[at].split("_")
        subject, code = client, f"{type_}_{pai}"
        kind = next((k for k, types in WMCA_KINDS.items() if _listed(types, int(type_), int(pai))), None)
    return ("live" if live else kind or "attack"), subject


def _listed(types: dict[int, list[tuple[int, int]]], type_: int, pai: int) -> bool:
    return any(low <= pai <= high for low, high in types.get(type_, []))
