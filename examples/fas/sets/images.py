"""From the records of a list to samples: opening, cropping and resizing the images of the four data sets."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from fas.samples import DOMAINS, KINDS, MODALITIES, TOKENS, Samples

from .lists import Record

_BLACK = 8  # a border is darker than this grey level throughout
_PIXELS, _BYTES = 1 << 25, 1 << 29  # of an image, of a PADISI array: what is larger shows no face, and may be a bomb
# what pillow, zipfile and numpy raise for files that are cut off, or something else, or claim to be huge
_BROKEN = (
    OSError, SyntaxError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
Box = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the width and height
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Loaded(NamedTuple):
    """What could be read of a list's records."""

    samples: Samples
    rows: list[int]  # the record of each sample
    boxes: list[Box]  # what was kept of each sample's images
    unreadable: list[str]  # a message for each other record
    uneven: int  # samples whose colour image has another resolution than depth or infrared


def load_records(records: Sequence[Record], *, size: int = 64, crop: bool = True, workers: int = 0) -> Loaded:
    """The samples that can be read, all modalities resized to `size`, by `workers` threads.

    `crop` cuts away the black borders of CeFA, by the box of the colour image, from all three modalities. The code of a
    person is a hash of the name: the same in every list.
    """
    shapes = {"rgb": 3, "depth": 1, "infrared": 1}
    arrays = {name: np.zeros((len(records), c, size, size), np.uint8) for name, c in shapes.items()}

    def read(row: int) -> tuple[Box, bool] | str:
        record = records[row]
        try:
            images = _padisi(record.rgb) if record.layout == "P" else _files(record)
        except _BROKEN as error:
            return f"{record.source}: expected a readable image, found {type(error).__name__}: {error}"
        box = _bright_box(images[0]) if crop and record.layout == "C" else WHOLE
        for array, image in zip(arrays.values(), images, strict=True):
            array[row] = _resized(_cut(image, box), size)
        return box, len({image.size for image in images}) > 1

    if workers:
        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(read, range(len(records))))
    else:
        outcomes = [read(row) for row in range(len(records))]
    good = {row: outcome for row, outcome in enumerate(outcomes) if not isinstance(outcome, str)}
    unreadable = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if not good:
        raise ValueError(
            f"records: expected at least one readable sample, found none of {len(records)}; {'; '.join(unreadable[:3])}"
        )
    rows = list(good)
    kept = [records[row] for row in rows]
    samples = Samples(
        **{name: torch.from_numpy(array if not unreadable else array[rows]) for name, array in arrays.items()},
        live=torch.tensor([record.live for record in kept]),
        kind=torch.tensor([KINDS.index(record.kind) for record in kept]),
        domain=torch.tensor([DOMAINS.index(record.layout) for record in kept]),
        identity=torch.tensor([_person(record) for record in kept]),
        failure=torch.zeros(len(kept), len(MODALITIES), TOKENS, TOKENS, dtype=torch.uint8),
    )
    return Loaded(samples, rows, [box for box, _ in good.values()], unreadable, sum(odd for _, odd in good.values()))


def load_images(records: Sequence[Record], *, size: int = 64, crop: bool = True) -> tuple[Samples, list[str]]:
    """The samples that can be read, as :func:`load_records` does, and a message for each one that cannot."""
    loaded = load_records(records, size=size, crop=crop)
    return loaded.samples, loaded.unreadable


def _person(record: Record) -> int:
    """A number for a person of a data set; −1 for nobody knows who."""
    name = f"{record.layout}:{record.subject}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") if record.subject else -1


def _files(record: Record) -> list[Image.Image]:
    images = []
    for path, mode in ((record.rgb, "RGB"), (record.depth, "L"), (record.infrared, "L")):
        with Image.open(path) as image:
            if image.width * image.height > _PIXELS:
                raise ValueError(f"expected at most {_PIXELS} pixels, found {image.width}×{image.height}")
            images.append(image.convert(mode))
    return images


def _padisi(path: Path) -> list[Image.Image]:
    """Channels 0–2 are BGR, 3 is near infrared, 4 is depth, from 0 to 1."""
    with zipfile.ZipFile(path) as archive, archive.open("data.npy") as file:
        size = archive.getinfo("data.npy").file_size
        if size > _BYTES:
            raise ValueError(f"data: expected at most {_BYTES} bytes, found {size}")
        data = np.lib.format.read_array(file, allow_pickle=False)
    if data.ndim != 4 or data.shape[0] != 1 or data.shape[1] < 5:
        raise ValueError(f"data: expected shape (1, 22, height, width), found {data.shape}")
    levels = (np.clip(data[0, :5], 0, 1) * 255 + 0.5).astype(np.uint8)
    rgb = np.ascontiguousarray(levels[[2, 1, 0]].transpose(1, 2, 0))
    return [Image.fromarray(rgb), Image.fromarray(levels[4]), Image.fromarray(levels[3])]


def _bright_box(image: Image.Image) -> Box:
    """Where an image is not black."""
    bright = np.asarray(image).max(-1) > _BLACK
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        return WHOLE
    width, height = image.size
    edges = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return tuple(map(float, edges))


def _cut(image: Image.Image, box: Box) -> Image.Image:
    if box == WHOLE:
        return image
    width, height = image.size
    left, top, right, bottom = box
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """A "c size size" array."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
