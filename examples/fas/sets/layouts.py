"""Writes samples to disk in the layouts of the four data sets, lists included, so that ``opened`` reads them back.

:func:`write_standin` writes all of the stand-in: four folders, each as if it were the data set that it imitates.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from fas.samples import DOMAINS, SPLITS, Samples
from fas.standin import COUNTS, IDENTITIES, VERSION, make_split

from .lists import LAYOUTS
from .names import image_names
from .opened import save_truth

_STAMP = "stand-in.json"
_PARTIAL = ".partial"
_CHANNELS = 22  # of a PADISI file; the ones that nobody reads stay 0


def write_layout(samples: Samples, root: Path | str, layout: str, *, split: str = "train") -> Path:
    """Write images (lossless) and the list `split`.txt below `root`; returns the path of the list.

    Row i of the list is sample i. Kinds that a layout has no name for raise; PADISI's list says only live or attack,
    and no identity.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, found {layout!r}")
    root = Path(root)
    kinds = samples.kind_names
    names = [image_names(kinds[i], int(samples.identity[i]), i, layout, split) for i in range(len(kinds))]
    root.mkdir(parents=True, exist_ok=True)
    for folder in sorted({(root / file).parent for files in names for file in files}):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, files in enumerate(names):
        rgb, depth, infrared = samples.rgb[i].numpy(), samples.depth[i, 0].numpy(), samples.infrared[i, 0].numpy()
        if layout == "P":
            channels = np.stack([*rgb[::-1], infrared, depth]) / np.float32(255)
            _write_padisi(root / f"ID_{i:06d}_{files[0]}_standin.npz", channels)
            rows.append(f"{files[0]}.npz\t{int(samples.live[i])}")
            continue
        for file, image in zip(files, (rgb.transpose(1, 2, 0), depth, infrared), strict=True):
            Image.fromarray(np.ascontiguousarray(image)).save(root / file, compress_level=1)  # four times as fast as 6
        rows.append(f"{' '.join(files)} {int(samples.live[i])}")
    path = root / f"{split}.txt"
    text = "\n".join(rows) + "\n" if layout == "P" else "\r\n".join(rows)  # as the published files end their lines
    path.write_bytes(text.encode())
    return path


def _write_padisi(path: Path, channels: np.ndarray) -> None:
    """An .npz with the key "data": the channels "c h w" and black ones up to 22, as ``numpy.savez`` would, but fast."""
    data = np.zeros((1, _CHANNELS, *channels.shape[1:]), np.float32)
    data[0, : len(channels)] = channels
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("data.npy", "w") as array:
        np.lib.format.write_array(array, data, allow_pickle=False)


def write_standin(
    root: Path | str, *, seed: int, counts: Mapping[str, int] = COUNTS, workers: int = 2
) -> dict[tuple[str, str], Path]:
    """Draw all splits of all domains and write them below `root`; returns the lists by (domain, split).

    The paths in a list start from the folder it lies in, `root`/<domain>. Beside it lies ``truth-<split>.npz``: kind,
    identity and failure of each row, that no real list says. A domain is written under another name and gets its own
    when it is whole, so that a kill leaves no half of one; one that is there, of the same seed, counts and version of
    the generator, is not drawn again, and one of others is replaced. A folder that is no stand-in is left alone: an
    error. `workers` processes draw; with 1 it happens in this one.
    """
    root = Path(root)
    if set(counts) != set(SPLITS):
        raise ValueError(f"counts: expected a number for each of {', '.join(SPLITS)}, found {dict(counts)}")
    recipe = {"seed": seed, "version": VERSION, "counts": dict(counts), "identities": dict(IDENTITIES)}
    wanted = [domain for domain in DOMAINS if _stamp(root / domain) != recipe]
    for domain in wanted:
        shutil.rmtree(root / f"{domain}{_PARTIAL}", ignore_errors=True)
    jobs = [
        (root / f"{domain}{_PARTIAL}", domain, split, counts[split], seed)
        for split in sorted(SPLITS, key=lambda split: -counts[split])  # the longest first
        for domain in wanted
    ]
    if workers > 1 and jobs:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in [pool.submit(_write_split, *job) for job in jobs]:
                done.result()
    else:
        for job in jobs:
            _write_split(*job)
    for domain in wanted:
        partial = root / f"{domain}{_PARTIAL}"
        (partial / _STAMP).write_text(json.dumps(recipe))
        if (root / domain).exists():
            shutil.rmtree(root / domain)
        partial.rename(root / domain)
    return {(domain, split): root / domain / f"{split}.txt" for domain in DOMAINS for split in SPLITS}


def _write_split(folder: Path, domain: str, split: str, count: int, seed: int) -> None:
    samples = make_split(domain, split, count, seed=seed)
    save_truth(samples, write_layout(samples, folder, domain, split=split))


def _stamp(folder: Path) -> dict | None:
    """What a stand-in was made of; None if there is nothing."""
    if (folder / _STAMP).is_file():
        return json.loads((folder / _STAMP).read_text())
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"root: expected {folder} to be absent, empty or a stand-in, found other files in it")
    return None
