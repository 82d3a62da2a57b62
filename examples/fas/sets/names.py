"""Where the images of a sample belong in the layouts of the four data sets: the inverse of ``codes``."""

_SURF = {"cut eyes": "01_e_s", "cut eyes nose": "03_en_s", "cut eyes nose mouth": "05_enm_s"}
_CEFA = {
    "live": "1_1_1",
    "print": "3_1_2",
    "bent print": "3_2_2",  # read back as print: the lists know no bent ones
    "replay": "3_1_4",
    "rigid mask": "0_0_2_1_3",
    "silicone mask": "1_0_2_1_1",
}
_WMCA = {
    "live": "0_00",
    "fake head": "2_01",
    "paper mask": "2_08",
    "rigid mask": "2_12",
    "silicone mask": "2_18",
    "glasses": "1_01",
    "print": "3_01",
    "bent print": "3_02",  # as above
    "replay": "4_01",
}


def image_names(kind: str, person: int, row: int, layout: str, split: str) -> list[str]:
    """Where the images of a row belong."""
    if layout == "P":
        return [f"{split}{row:06d}"]
    if layout == "S":
        part = "real" if kind == "live" else "fake"
        code = "real" if kind == "live" else _named(_SURF, kind, layout)
        short = {"dev": "val"}.get(split, split)
        folder = f"CASIA-SURF-CROP/{part}_part/{part}_{short}_part/CLKJ_{person:04d}/{code}.rssdk"
        return [f"{folder}/{modality}/{row:06d}.png" for modality in ("color", "depth", "ir")]
    if layout == "C":
        code = _named(_CEFA, kind, layout)
        mask = {"rigid mask": "CeFA-Mask/3D-Mask", "silicone mask": "CeFA-Mask/Silicone-Mask"}.get(kind)
        folder = f"CeFA/{mask or 'CeFA-Race/AF'}/AF-{person:04d}/1_{person:04d}_{code}"
        return [f"{folder}/{modality}/{row:06d}.png" for modality in ("profile", "depth", "ir")]
    folder = f"WMCA-Image/R_CDIT/{person:05d}_01_001_{_named(_WMCA, kind, layout)}"
    return [f"{folder}/{modality}/{row:06d}.png" for modality in ("color", "depth", "ir")]


def _named(codes: dict[str, str], kind: str, layout: str) -> str:
    if kind not in codes:
        raise ValueError(f"samples: expected kinds that layout {layout} names ({', '.join(codes)}), found {kind!r}")
    return codes[kind]
