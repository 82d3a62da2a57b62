"""Writes samples to disk in the layouts of the four data sets, list included, so that ``lists`` reads them back."""

from pathlib import Path

import numpy as np
from PIL import Image

from fas.samples import Samples

from .lists import LAYOUTS

_SURF = {"cut eyes": "01_e_s", "cut eyes nose": "03_en_s", "cut eyes nose mouth": "05_enm_s"}
_CEFA = {"live": "1_1_1", "print": "3_1_2", "replay": "3_1_4", "rigid mask": "0_0_2_1_3", "silicone mask": "1_0_2_1_1"}
_WMCA = {
    "live": "0_00",
    "fake head": "2_01",
    "paper mask": "2_08",
    "rigid mask": "2_12",
    "silicone mask": "2_18",
    "glasses": "1_01",
    "print": "3_01",
    "bent print": "3_02",  # read back as print: the list knows no bent ones
    "replay": "4_01",
}
_CHANNELS = 22  # of a PADISI file; the ones that nobody reads stay 0


def write_layout(samples: Samples, root: Path | str, layout: str, *, split: str = "train") -> Path:
    """Write images (lossless) and the list `split`.txt below `root`; returns the path of the list.

    Kinds that a layout has no name for raise; PADISI's list says only live or attack, and no identity.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, found {layout!r}")
    root = Path(root)
    names = [_names(samples, i, layout, split) for i in range(len(samples.live))]
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, files in enumerate(names):
        label = int(samples.live[i])
        rgb = samples.rgb[i].numpy()
        depth, infrared = samples.depth[i, 0].numpy(), samples.infrared[i, 0].numpy()
        if layout == "P":
            data = np.zeros((1, _CHANNELS, *depth.shape), np.float32)
            data[0, :5] = np.stack([*rgb[::-1], infrared, depth]) / np.float32(255)
            np.savez_compressed(root / f"ID_{i:06d}_{files[0]}_standin.npz", data=data)
            rows.append(f"{files[0]}.npz\t{label}")
            continue
        for file, image in zip(files, (rgb.transpose(1, 2, 0), depth, infrared), strict=True):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(root / file)
        rows.append(f"{' '.join(files)} {label}")
    path = root / f"{split}.txt"
    text = "\n".join(rows) + "\n" if layout == "P" else "\r\n".join(rows)  # as the published files end their lines
    path.write_bytes(text.encode())
    return path


def _names(samples: Samples, i: int, layout: str, split: str) -> list[str]:
    """Where the images of sample `i` belong."""
    kind, person = samples.kind_names[i], int(samples.identity[i])
    if layout == "P":
        return [f"{split}{i:06d}"]
    if layout == "S":
        part = "real" if kind == "live" else "fake"
        code = "real" if kind == "live" else _named(_SURF, kind, layout)
        folder = f"CASIA-SURF-CROP/{part}_part/{part}_{split}_part/CLKJ_{person:04d}/{code}.rssdk"
        return [f"{folder}/{modality}/{i:06d}.png" for modality in ("color", "depth", "ir")]
    if layout == "C":
        code = _named(_CEFA, kind, layout)
        mask = {"rigid mask": "CeFA-Mask/3D-Mask", "silicone mask": "CeFA-Mask/Silicone-Mask"}.get(kind)
        folder = f"CeFA/{mask or 'CeFA-Race/AF'}/AF-{person:04d}/1_{person:04d}_{code}"
        return [f"{folder}/{modality}/{i:06d}.png" for modality in ("profile", "depth", "ir")]
    folder = f"WMCA-Image/R_CDIT/{person:05d}_01_001_{_named(_WMCA, kind, layout)}"
    return [f"{folder}/{modality}/{i:06d}.png" for modality in ("color", "depth", "ir")]


def _named(codes: dict[str, str], kind: str, layout: str) -> str:
    if kind not in codes:
        raise ValueError(f"samples: expected kinds that layout {layout} names ({', '.join(codes)}), found {kind!r}")
    return codes[kind]
