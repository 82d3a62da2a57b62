"""From a list file to samples in one call: what the list says, the images, and the truth where it is known.

The lists of a generated stand-in have a file ``truth-<split>.npz`` beside them, with what no real list says: kinds that
the layout has no name for, identities, and where a sensor failed. It is read where it lies.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fas.files import whole
from fas.samples import TOKENS, Samples

from .images import Box, load_records
from .lists import Record, count_kinds, read_list
from .published import ListReport

_FORMAT = 1  # of the cached files; part of their names


class Opened(NamedTuple):
    """A list, read."""

    samples: Samples
    report: str  # to print: counts, the published table, what was skipped and why


def open_list(
    path: Path | str,
    root: Path | str,
    layout: str,
    *,
    size: int = 64,
    workers: int = 0,
    cache: Path | str | None = None,
) -> Opened:
    """The samples of one list, images resized to `size` by `workers` threads, and the report on it.

    `cache` is a folder in which the packed samples are kept. The name of such a file is a hash of everything it depends
    on: the bytes of the list and of its truth, the root, the layout, the size, and the size and time of change of every
    image file, so that a file that comes, goes or changes is noticed.
    """
    path, root = Path(path), Path(root)
    records, report = read_list(path, root, layout)
    if not records:
        raise ValueError(f"{path}: expected images below {root}, found none; {'; '.join(report.missing[:1])}")
    kept = None
    if cache is not None:
        kept = Path(cache) / f"{layout}-{path.stem}-{size}-{_key(path, root, layout, size, records)}.npz"
        if kept.exists():
            samples, unreadable, uneven = _load(kept)
            return Opened(samples, f"{_told(report, path, samples, unreadable, uneven)}\n  read from {kept}")
    loaded = load_records(records, size=size, workers=workers)
    samples = loaded.samples
    if _truth(path).is_file():
        lines = [records[row].line for row in loaded.rows]
        samples = _with_truth(samples, _truth(path), lines, loaded.boxes)
    if kept is not None:
        _save(kept, samples, loaded.unreadable, loaded.uneven)
    return Opened(samples, _told(report, path, samples, loaded.unreadable, loaded.uneven))


def save_truth(samples: Samples, path: Path) -> None:
    """Write the truth on the list `path`, whose line i is about sample i − 1."""
    arrays = {name: getattr(samples, name).numpy() for name in ("kind", "identity", "failure")}
    np.savez_compressed(_truth(path), **arrays)


def _truth(path: Path) -> Path:
    return path.with_name(f"truth-{path.stem}.npz")


def _with_truth(samples: Samples, path: Path, lines: list[int], boxes: list[Box]) -> Samples:
    with np.load(path) as file:
        kind, identity, failure = (torch.from_numpy(file[name]) for name in ("kind", "identity", "failure"))
    rows = torch.tensor(lines) - 1
    if int(rows.max()) >= len(kind) or not torch.equal(kind[rows] == 0, samples.live):
        raise ValueError(f"{path}: expected the truth on the list beside it, found another order or number of rows")
    return samples._replace(kind=kind[rows], identity=identity[rows], failure=_cropped(failure[rows], boxes))


def _cropped(failure: Tensor, boxes: list[Box]) -> Tensor:
    """The marks "b m 8 8" of images that were cut to `boxes`: each token takes the mark under its centre."""
    edges = torch.tensor(boxes, dtype=torch.float64)[:, :, None]  # b 4 1
    centre = (torch.arange(TOKENS, dtype=torch.float64) + 0.5) / TOKENS
    column, row = (edges[:, i] + (edges[:, i + 2] - edges[:, i]) * centre for i in (0, 1))
    column, row = ((at * TOKENS).long().clamp(max=TOKENS - 1) for at in (column, row))
    batch = torch.arange(len(failure))[:, None, None]
    return failure[batch, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _told(report: ListReport, path: Path, samples: Samples, unreadable: list[str], uneven: int) -> str:
    notes = list(report.notes)
    if uneven:
        notes.append(f"colour has another resolution than depth or infrared in {uneven} samples; all are resized alike")
    if _truth(path).is_file():
        notes.append(f"kinds, identities and failures are those of {_truth(path).name}")
    kept = count_kinds(samples.kind_names)
    return str(report._replace(kept=kept, unreadable=tuple(unreadable), notes=tuple(notes)))


def _key(path: Path, root: Path, layout: str, size: int, records: list[Record]) -> str:
    digest = hashlib.sha256(repr((_FORMAT, str(path.resolve()), str(root.resolve()), layout, size)).encode())
    digest.update(path.read_bytes())
    if _truth(path).is_file():
        digest.update(_truth(path).read_bytes())
    for record in records:
        for file in dict.fromkeys((record.rgb, record.depth, record.infrared)):
            state = file.stat()
            digest.update(f"{record.line} {file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _save(path: Path, samples: Samples, unreadable: list[str], uneven: int) -> None:
    """Write samples and messages."""
    arrays = {name: field.numpy() for name, field in samples._asdict().items()}
    with whole(path) as partial:
        np.savez(partial, unreadable=np.array(unreadable, dtype=np.str_), uneven=uneven, **arrays)


def _load(path: Path) -> tuple[Samples, list[str], int]:
    with np.load(path) as file:
        samples = Samples(*(torch.from_numpy(file[name]) for name in Samples._fields))
        return samples, file["unreadable"].tolist(), int(file["uneven"])
