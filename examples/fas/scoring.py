"""Score a folder of images with a saved run: `fas_surf.py score RUN FOLDER`.

FOLDER holds ``rgb``, ``depth`` and ``infrared``, with images of the same stems (.png, .jpg). A sub-folder that is not
there is a sensor that is not there; a stem that one of them lacks is missing for that sample alone. Either way
:func:`fas.data.hide` makes it what training and testing call missing. Images are resized as those of list files are;
black borders are not cut away.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import record
from .backbones import backbone
from .data import hide
from .files import whole
from .samples import MODALITIES, Samples
from .scores import EPOCHS
from .sets.images import load_records
from .sets.lists import Record
from .study import SENSORS
from .systems import ABLATION, SYSTEMS, Setup, System
from .training import Options, autocast, read, share_of

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how one begins in a spreadsheet


class Folder(NamedTuple):
    """What a folder of images holds."""

    names: list[str]  # the stem of each sample
    samples: Samples
    absent: dict[str, Tensor]  # {modality: bool "b"}, which samples lack it; their pixels mean nothing
    unreadable: list[str]  # a message for each sample that was left out


def main(arguments: list[str]) -> None:
    """The command `fas_surf.py score`."""
    description = "Score a folder of images with a saved run."
    parser = argparse.ArgumentParser("fas_surf.py score", description=description)
    add = parser.add_argument
    add("run", type=Path, help="the folder of one training, such as runs/fas_surf/CPS/seed-0/MMDG")
    add("folder", type=Path, help="with sub-folders rgb, depth, infrared; one that is not there is a missing sensor")
    add("--epoch", choices=EPOCHS, default="last", help="the last, or the best on development data")
    add("--out", type=Path, metavar="FILE.csv", help="write there instead of a line a sample")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    try:
        system, run = load_run(args.run, args.epoch, args.device)
        found = read_folder(args.folder, run["size"])
    except ValueError as error:
        raise SystemExit(f"score: {error}") from error
    for message in found.unreadable:
        print(f"skipped: {message}", file=sys.stderr)
    options = Options(infrared=tuple(run["options"]["infrared"]), amp=run["options"]["amp"], device=args.device)
    scores = score_folder(system, found, options).tolist()
    threshold = run["thresholds"][args.epoch]
    data = ", ".join(run["sources"]) + (f" without {run['left_out']}" if run["left_out"] else "")
    print(f"threshold {threshold:+.4f}: equal error rate on the development data of {data}, {args.epoch} epoch")
    verdicts = ["live" if score >= threshold else "attack" for score in scores]
    lacks = [" ".join(m for m, gone in found.absent.items() if gone[row]) for row in range(len(scores))]
    rows = list(zip(found.names, scores, verdicts, lacks, strict=True))
    if args.out is not None:
        write(rows, args.out)
        print(f"{len(rows)} samples in {args.out}")
        return
    width = max(map(len, found.names))
    for name, score, verdict, lack in rows:
        print(f"{name:<{width}}  {score:+9.4f}  {verdict:<6}" + (f"  without {lack}" if lack else ""))


def load_run(folder: Path, epoch: str, device: str) -> tuple[System, dict[str, Any]]:
    """The trained system of a run, in evaluation mode, and what its ``run.json`` says (:func:`fas.study.run`)."""
    for name, what in (("checkpoint.pt", "a checkpoint"), (record.NAME, "the record of a finished training")):
        if not (folder / name).is_file():
            raise ValueError(f"run: expected {what} at {folder / name}, found none")
    run = record.read(folder / record.NAME)
    known = SYSTEMS | ABLATION
    if run["system"] not in known:
        raise ValueError(
            f"run: expected {folder / record.NAME} to name one of {', '.join(known)}, found {run['system']!r}"
        )
    channels = {**SENSORS, "infrared": len(run["options"]["infrared"])}
    system = known[run["system"]](Setup(backbone(run["backbone"], run["weights"]), channels, run["domains"]))
    state = read(folder / "checkpoint.pt", device)
    system.to(device).load_state_dict(state["system" if epoch == "last" else "best"])
    return system.eval(), run


def read_folder(folder: Path, size: int) -> Folder:
    """The images of a folder, `size` pixels wide and high, by stem; a sample with an unreadable image is left out."""
    images = {m: stems(folder / m) for m in MODALITIES}
    names = sorted(set().union(*images.values()))
    if not names:
        where = ", ".join(str(folder / m) for m in MODALITIES)
        raise ValueError(f"folder: expected images ({', '.join(SUFFIXES)}) in {where}, found none")
    records = []
    for name in names:
        there = [paths[name] for paths in images.values() if name in paths]
        files = {m: paths.get(name, there[0]) for m, paths in images.items()}  # another stands in, and is hidden later
        records.append(_Files(list=folder, line=0, **files, live=False, kind="attack", subject="", layout="S"))
    loaded = load_records(records, size=size, crop=False)
    kept = [names[row] for row in loaded.rows]
    absent = {m: torch.tensor([name not in paths for name in kept]) for m, paths in images.items()}
    return Folder(kept, loaded.samples, absent, loaded.unreadable)


class _Files(Record):
    """The images of one stem, of which no list speaks."""

    @property
    def source(self) -> str:
        """The files, for messages."""
        return ", ".join(dict.fromkeys(map(str, (self.rgb, self.depth, self.infrared))))


def stems(folder: Path) -> dict[str, Path]:
    """The images of one sub-folder by stem; none if it is not there."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and found.setdefault(path.stem, path) != path:
            raise ValueError(f"folder: expected one image a stem, found {found[path.stem]} and {path}")
    return found


@torch.no_grad()
def score_folder(system: System, found: Folder, options: Options) -> Tensor:
    """How live each sample looks, log-odds "b", on the CPU."""
    parts = []
    for batch in share_of(found.samples, options, 0, 1)():
        inputs = batch.inputs
        for name, gone in found.absent.items():
            inputs = hide(inputs, [name], gone.to(options.device)[batch.rows])
        with autocast(options):
            logits = system(inputs).logits.float().cpu()
        parts.append(logits[:, 1] - logits[:, 0])
    return torch.cat(parts)


def write(rows: list[tuple[str, float, str, str]], path: Path) -> None:
    """Save as CSV, whole or not at all. A name that a spreadsheet would take for a formula gets a quote before it."""
    safe = [(f"'{name}" if name.startswith(FORMULA) else name, *rest) for name, *rest in rows]
    with whole(path) as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "score", "decision", "missing"), *safe])
