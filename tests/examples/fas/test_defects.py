"""A tiny tree in each of the four real layouts with every published defect planted, read in one call."""

from pathlib import Path

import numpy as np
import torch
from fas.samples import DOMAINS
from fas.sets.lists import overlap
from fas.sets.opened import open_list
from PIL import Image

Row = tuple[str, str, str]


def image(path: Path, size: tuple[int, int] = (16, 20), grey: int = 90, border: int = 0) -> None:
    """A JPEG of one grey level, with a black border of as many pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[border : size[1] - border, border : size[0] - border] = grey
    Image.fromarray(pixels).convert("RGB").save(path, quality=95)


def rows(folder: str, names: tuple[str, str, str], frame: str) -> Row:
    return tuple(f"{folder}/{name}/{frame}.jpg" for name in names)  # type: ignore[return-value]


def write(path: Path, entries: list[tuple[Row, int]]) -> Path:
    """CRLF, and nothing after the last line."""
    path.write_bytes("\r\n".join(f"{' '.join(row)} {label}" for row, label in entries).encode())
    return path


def surf(root: Path) -> Path:
    """Two live rows; the six attacks, 02_e_b one row fewer; one row twice; one file gone; colour of a larger size."""
    entries = []
    for part, code, count in [("real", "real", 2), *[("fake", f"{n:02}_{c}_{'bs'[n % 2]}", 2 - (n == 2))
                              for n, c in enumerate(["e", "e", "en", "en", "enm", "enm"], start=1)]]:  # fmt: skip
        for frame in range(count):
            folder = f"CASIA-SURF-CROP/{part}_part/{part}_train_part/CLKJ_AS{frame:04}/{code}.rssdk"
            row = rows(folder, ("color", "depth", "ir"), f"{frame:03}")
            for name, size in zip(row, ((32, 40), (16, 20), (16, 20)), strict=True):
                image(root / name, size)
            entries.append((row, int(part == "real")))
    (root / entries[-1][0][1]).unlink()
    return write(root / "train.txt", [*entries, entries[0]])


def test_casia_surf(tmp_path):
    path = surf(tmp_path)
    samples, report = open_list(path, tmp_path, "S")
    assert len(samples.live) == 12 and int(samples.live.sum()) == 2
    assert report.splitlines() == [
        f"{path}: 14 rows (3 live, 11 attack); not a full published list (live/attack rows of those: train 900/5397, "
        "validation 300/1800, test 1800/10764)",
        "  kept: live 2, cut eyes 3, cut eyes nose 4, cut eyes nose mouth 3",
        "  dropped: 1 duplicated, 1 without a file, 0 unreadable",
        "  attack rows by code: 01_e_s 2, 02_e_b 1, 03_en_s 2, 04_en_b 2, 05_enm_s 2, 06_enm_b 2",
        "  note: colour has another resolution than depth or infrared in 12 samples; all are resized alike",
        f"  skipped {path}:13: expected a file, found nothing at {tmp_path}/CASIA-SURF-CROP/fake_part/fake_train_part/"
        "CLKJ_AS0001/06_enm_b.rssdk/depth/001.jpg",
    ]


def cefa(root: Path) -> dict[str, Path]:
    """A row and a person in validation and test; a row twice; mask videos without most frames; black borders."""
    modalities = ("profile", "depth", "ir")

    def race(person: int, code: str, frame: str = "0001") -> Row:
        return rows(f"CeFA/CeFA-Race/AF/AF-{person}/1_{person}_{code}", modalities, frame)

    masks = [rows("CeFA/CeFA-Mask/3D-Mask/1_001_0_0_2_1_3", modalities, f"{i:04}") for i in range(8)]
    silicone = rows("CeFA/CeFA-Mask/Silicone-Mask/2_001_1_0_2_1_1", modalities, "0001")
    dev = [(race(300, "1_1_1"), 1), (race(299, "3_1_2"), 0), (race(299, "3_2_2"), 0), (race(299, "3_1_4"), 0)]
    test = [dev[0], (race(301, "1_1_1"), 1), (race(301, "3_1_2"), 0), (silicone, 0), *((row, 0) for row in masks)]
    for row, _ in dev + test[:4] + [(masks[0], 0)]:
        for name in row:
            image(root / name, (40, 40), 150, border=6)
    return {"dev": write(root / "dev.txt", dev), "test": write(root / "test.txt", [*test, test[1]])}


def test_cefa(tmp_path):
    lists = cefa(tmp_path)
    samples, report = open_list(lists["test"], tmp_path, "C", size=32)
    lines = report.splitlines()
    assert "13 rows (3 live, 10 attack); not a full published list" in lines[0]
    assert lines[1:3] == [
        "  kept: live 2, print 1, silicone mask 1, rigid mask 1",
        "  dropped: 1 duplicated, 7 without a file, 0 unreadable",
    ]
    assert len(lines) == 9 and lines[-1] == "  … and 2 more like these"
    assert f"skipped {lists['test']}:6: expected a file, found nothing at {tmp_path}/CeFA/CeFA-Mask/3D-Mask" in lines[3]
    assert all(int(x.min()) > 100 for x in samples[:3])  # the borders are gone, from all modalities
    dev = open_list(lists["dev"], tmp_path, "C").samples
    assert dev.kind_names == ["live", "print", "print", "replay"]
    assert set(dev.identity.tolist()) & set(samples.identity.tolist()) == {int(dev.identity[0])}
    assert overlap(lists, "C") == (
        "C: dev and test share 1 row (CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1/profile/0001.jpg) and 1 person (AF-300)"
    )


def wmca(root: Path) -> Path:
    """The two frame triples that are known not to belong together, another one, and a file that is no image."""
    triples = [
        ("015_01_000_0_01", "0012", "0012", 1),
        ("100_03_015_2_10", "0012", "0013", 0),
        ("101_06_067_1_02", "0020", "0024", 0),
        ("102_01_000_3_01", "0024", "0036", 0),
        ("103_01_000_4_18", "0036", "0036", 0),
    ]
    entries = []
    for video, colour, other, label in triples:
        folder = f"WMCA-Image/R_CDIT/{video}"
        row = (f"{folder}/color/{colour}.jpg", f"{folder}/depth/{other}.jpg", f"{folder}/ir/{other}.jpg")
        for name in row:
            image(root / name)
        entries.append((row, label))
    (root / entries[-1][0][2]).write_bytes((root / entries[-1][0][2]).read_bytes()[:100])
    return write(root / "test.txt", entries)


def test_wmca(tmp_path):
    path = wmca(tmp_path)
    samples, report = open_list(path, tmp_path, "W")
    assert samples.kind_names == ["live", "paper mask", "rigid mask", "print"]
    lines = report.splitlines()
    assert "5 rows (1 live, 4 attack)" in lines[0]
    assert lines[2] == "  dropped: 0 duplicated, 0 without a file, 1 unreadable"
    assert lines[3].startswith(f"  skipped {path}:5: expected a readable image, found ")
    odd = [line for line in lines if "kept, but frames do not belong together" in line]
    assert [f"{path}:{n}" in line for n, line in zip((2, 3, 4), odd, strict=True)] == [True] * 3
    assert [line.endswith("(a known one)") for line in odd] == [True, True, False]


def padisi(root: Path, own: bool) -> Path:
    """Files named otherwise than the ids in the list, blue first; labels of the lists, or the data set's own."""
    text = ""
    for trial, live in (("a1b2", 1), ("c3d4", 0), ("e5f6", 0)):
        data = np.zeros((1, 22, 40, 32), np.float32)
        data[0, :5] = np.array([10, 20, 30, 40, 50], np.float32)[:, None, None] / 255 + live / 2
        (root / "part").mkdir(exist_ok=True)
        np.savez(root / "part" / f"ID_{live:05}_{trial}_face.npz", data=data)
        text += f"{trial}.npz\t{not live if own else live}\n"
    path = root / "train.txt"
    path.write_bytes((text + ("gone.npz\tTrue\n" if own else "gone.npz\t0\n")).encode())
    return path


def test_padisi(tmp_path):
    for own in (False, True):
        path = padisi(tmp_path, own)
        samples, report = open_list(path, tmp_path, "P", size=20)
        assert samples.kind_names == ["live", "attack", "attack"] and samples.live.tolist() == [True, False, False]
        assert samples.rgb[1, :, 0, 0].tolist() == [30, 20, 10]  # red first
        assert samples.infrared[1, 0, 0, 0] == 40 and samples.depth[1, 0, 0, 0] == 50
        assert samples.rgb[0, 0, 0, 0] > 150  # the live one is the brighter one
        assert "4 rows (1 live, 3 attack)" in report and "0 duplicated, 1 without a file" in report
        assert f"skipped {path}:4: expected a file, found nothing at {tmp_path}/gone.npz" in report
        assert ("note: labels are True and False: read as PADISI's own, True = attack" in report) == own


def test_four_sets_make_one_batch(tmp_path):
    for domain in DOMAINS:
        (tmp_path / domain).mkdir()
    paths = {
        "S": surf(tmp_path / "S"),
        "C": cefa(tmp_path / "C")["test"],
        "W": wmca(tmp_path / "W"),
        "P": padisi(tmp_path / "P", own=False),
    }
    parts = [open_list(paths[d], tmp_path / d, d, cache=tmp_path / "cache").samples for d in DOMAINS]
    together = [torch.cat(fields) for fields in zip(*parts, strict=True)]
    assert together[0].shape == (12 + 5 + 4 + 3, 3, 64, 64)
    known = [set(part.identity[part.identity >= 0].tolist()) for part in parts]
    assert len(set().union(*known)) == sum(map(len, known))  # nobody is in two sets
