"""From the records of a list to samples: opening, cropping and resizing the images of the four data sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from fas.samples import DOMAINS, KINDS, MODALITIES, TOKENS, Samples

from .lists import Record

_BLACK = 8  # a border is darker than this grey level throughout


def load_images(records: Sequence[Record], *, size: int = 64, crop: bool = True) -> tuple[Samples, list[str]]:
    """The samples that can be read, resized to `size`, and a message for each one that cannot.

    `crop` cuts away the black borders of CeFA, by the box of the colour image, from all three modalities.
    """
    subjects = {name: code for code, name in enumerate(sorted({r.subject for r in records} - {""}))}
    triples, kept, messages = [], [], []
    for record in records:
        try:
            images = _padisi(record.rgb) if record.layout == "P" else _files(record)
        except (OSError, UnidentifiedImageError, ValueError, KeyError) as error:
            messages.append(f"{record.source}: expected a readable image, found {type(error).__name__}: {error}")
            continue
        if crop and record.layout == "C":
            images = _without_border(images)
        triples.append([_resized(image, size) for image in images])
        kept.append(record)
    if not kept:
        raise ValueError(f"records: expected at least one readable sample, found none; {'; '.join(messages[:3])}")
    rgb, depth, infrared = (torch.from_numpy(np.stack(images)) for images in zip(*triples, strict=True))
    samples = Samples(
        rgb=rgb,
        depth=depth,
        infrared=infrared,
        live=torch.tensor([record.live for record in kept]),
        kind=torch.tensor([KINDS.index(record.kind) for record in kept]),
        domain=torch.tensor([DOMAINS.index(record.layout) for record in kept]),
        identity=torch.tensor([subjects.get(record.subject, -1) for record in kept]),
        failure=torch.zeros(len(kept), len(MODALITIES), TOKENS, TOKENS, dtype=torch.uint8),
    )
    return samples, messages


def _files(record: Record) -> list[Image.Image]:
    images = []
    for path, mode in ((record.rgb, "RGB"), (record.depth, "L"), (record.infrared, "L")):
        with Image.open(path) as image:
            images.append(image.convert(mode))
    return images


def _padisi(path: Path) -> list[Image.Image]:
    """Channels 0–2 are BGR, 3 is near infrared, 4 is depth, from 0 to 1."""
    with np.load(path, allow_pickle=False) as file:
        data = file["data"]
    if data.ndim != 4 or data.shape[0] != 1 or data.shape[1] < 5:
        raise ValueError(f"data: expected shape (1, 22, height, width), found {data.shape}")
    grey = (np.clip(data[0, :5], 0, 1) * 255 + 0.5).astype(np.uint8)
    rgb = np.ascontiguousarray(grey[[2, 1, 0]].transpose(1, 2, 0))
    return [Image.fromarray(rgb), Image.fromarray(grey[4]), Image.fromarray(grey[3])]


def _without_border(images: list[Image.Image]) -> list[Image.Image]:
    """All images cut to the box in which the first is not black, in shares of the width and height."""
    bright = np.asarray(images[0]).max(-1) > _BLACK
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        return images
    width, height = images[0].size
    left, right = columns[0] / width, (columns[-1] + 1) / width
    top, bottom = rows[0] / height, (rows[-1] + 1) / height
    return [
        image.crop(
            (
                round(left * image.width),
                round(top * image.height),
                round(right * image.width),
                round(bottom * image.height),
            )
        )
        for image in images
    ]


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """A "c size size" array."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
