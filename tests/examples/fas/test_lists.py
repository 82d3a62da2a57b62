"""List files: every known defect by itself, and the way from samples to disk and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fas.samples import DOMAINS, Samples, concatenate
from fas.sets.codes import WMCA_KINDS
from fas.sets.images import load_images, load_records
from fas.sets.layouts import write_layout
from fas.sets.lists import overlap, read_list
from fas.sets.published import DUPLICATES, KINDS, ROWS, ListReport
from fas.standin import make_split
from PIL import Image

SURF = "CASIA-SURF-CROP/{0}_part/{0}_train_part/CLKJ_AS0001/{1}.rssdk/{2}/001.jpg"


def surf(code: str) -> str:
    part = "real" if code == "real" else "fake"
    return " ".join(SURF.format(part, code, modality) for modality in ("color", "depth", "ir"))


def wmca(code: str, frames: tuple[str, str, str] = ("0012", "0012", "0012")) -> str:
    folder = f"WMCA-Image/R_CDIT/001_01_000_{code}"
    return " ".join(f"{folder}/{m}/{f}.jpg" for m, f in zip(("color", "depth", "ir"), frames, strict=True))


def on_disk(root: Path, text: str, *, layout: str, images: bool = True) -> Path:
    """A list with `text`, and a small grey image for every name in it."""
    path = root / "list.txt"
    path.write_bytes(text.encode())
    for name in text.replace("\t", " ").split():
        if images and name.endswith(".jpg") and ".." not in name and not name.startswith("/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (90, 90, 90)).save(root / name)
    return path


@pytest.mark.parametrize("ends", ["\r\n", "\n"])
@pytest.mark.parametrize("last", ["", "\r\n"])
def test_line_endings_and_a_missing_last_newline(tmp_path, ends, last):
    text = ends.join([f"{surf('real')} 1", f"{surf('01_e_s')} 0"]) + last
    records, report = read_list(on_disk(tmp_path, text, layout="S"), tmp_path, "S")
    assert [(r.live, r.kind) for r in records] == [(True, "live"), (False, "cut eyes")]
    assert report.rows == (1, 1) and report.kept == {"live": 1, "cut eyes": 1}
    assert records[0].subject == "CLKJ_AS0001"


def test_duplicates_are_dropped_and_counted(tmp_path):
    text = "\n".join([f"{surf('real')} 1"] * 3)
    records, report = read_list(on_disk(tmp_path, text, layout="S"), tmp_path, "S")
    assert len(records) == 1 and report.duplicates == 2 and report.rows == (3, 0)


def test_a_missing_file_is_skipped_by_list_and_line(tmp_path):
    path = on_disk(tmp_path, f"{surf('real')} 1\n{surf('02_e_b')} 0\n", layout="S")
    gone = tmp_path / surf("02_e_b").split()[2]
    gone.unlink()
    records, report = read_list(path, tmp_path, "S")
    assert len(records) == 1
    assert report.skipped == (f"{path}:2: expected a file, found nothing at {gone}",)
    assert f"skipped {path}:2" in str(report)


def test_an_unreadable_image_is_skipped_by_list_and_line(tmp_path):
    path = on_disk(tmp_path, f"{surf('real')} 1\n{surf('02_e_b')} 0\n", layout="S")
    (tmp_path / surf("real").split()[1]).write_bytes(b"no image")
    records, _ = read_list(path, tmp_path, "S")
    samples, messages = load_images(records)
    assert samples.kind_names == ["cut eyes"]
    assert len(messages) == 1 and messages[0].startswith(f"{path}:1: expected a readable image, found")
    with pytest.raises(ValueError, match="records: expected at least one readable sample"):
        load_images(records[:1])


def test_wmca_frames_that_differ_are_kept_and_reported(tmp_path):
    text = (
        f"{wmca('2_12')} 0\n{wmca('2_10', ('0012', '0014', '0014'))} 0\n"
        + wmca("2_10", ("0012", "0013", "0013")).replace("001_01_000_2_10", "100_03_015_2_10")
        + " 0\n"
    )
    records, report = read_list(on_disk(tmp_path, text, layout="W"), tmp_path, "W")
    assert len(records) == 3 and len(report.mismatched) == 2
    assert ":2: " in report.mismatched[0] and "known" not in report.mismatched[0]
    assert ":3: " in report.mismatched[1] and "known" in report.mismatched[1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("0_00", "live"), ("0_02", "live"), ("2_01", "fake head"), ("2_08", "paper mask"), ("2_17", "rigid mask"),
        ("1_02", "rigid mask"), ("1_14", "rigid mask"), ("2_18", "silicone mask"), ("2_99", "silicone mask"),
        ("1_01", "glasses"), ("1_16", "glasses"), ("3_01", "print"), ("3_14", "print"), ("3_05", "replay"),
        ("3_15", "replay"), ("4_18", "replay"), ("2_40", "attack"),
    ],
)  # fmt: skip
def test_wmca_codes(tmp_path, code, kind):
    text = f"{wmca(code)} {int(kind == 'live')}"
    records, _ = read_list(on_disk(tmp_path, text, layout="W"), tmp_path, "W")
    assert records[0].kind == kind and records[0].subject == "001"


def test_no_wmca_code_has_two_meanings():
    codes = [
        (type_, pai)
        for types in WMCA_KINDS.values()
        for type_, ranges in types.items()
        for low, high in ranges
        for pai in range(low, high + 1)
    ]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("place", "kind", "subject"),
    [
        ("CeFA-Race/AF/AF-000/1_000_1_1_1", "live", "AF-000"),
        ("CeFA-Race/CA/CA-012/3_012_3_1_2", "print", "CA-012"),
        ("CeFA-Race/AF/AF-001/1_001_3_2_2", "print", "AF-001"),
        ("CeFA-Race/AF/AF-001/1_001_3_1_4", "replay", "AF-001"),
        ("CeFA-Mask/3D-Mask/1_001_0_0_2_1_3", "rigid mask", "1-001"),
        ("CeFA-Mask/Silicone-Mask/2_001_1_0_2_1_1", "silicone mask", "2-001"),
    ],
)
def test_cefa_codes(tmp_path, place, kind, subject):
    names = " ".join(f"CeFA/{place}/{modality}/0001.jpg" for modality in ("profile", "depth", "ir"))
    path = on_disk(tmp_path, f"{names} {int(kind == 'live')}\r\n", layout="C")
    ((record,), _) = read_list(path, tmp_path, "C")
    assert (record.kind, record.subject) == (kind, subject)


def test_black_borders_of_cefa_are_cropped_alike_in_all_modalities(tmp_path):
    names = [f"CeFA/CeFA-Race/AF/AF-000/1_000_1_1_1/{modality}/0001.png" for modality in ("profile", "depth", "ir")]
    path = on_disk(tmp_path, f"{' '.join(names)} 1", layout="C")
    for name, scale in zip(names, (1, 2, 1), strict=True):
        image = np.zeros((40 * scale, 40 * scale), np.uint8)
        image[10 * scale : 30 * scale, 4 * scale : 36 * scale] = 200
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    records, _ = read_list(path, tmp_path, "C")
    cropped, _ = load_images(records, size=16)
    assert all((image == 200).all() for image in cropped[:3])
    whole, _ = load_images(records, size=16, crop=False)
    assert (whole.rgb == 0).any()


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "..\\secret.jpg", "C:\\x.jpg"]
)
def test_no_path_leaves_the_root(tmp_path, name):
    path = on_disk(tmp_path, f"{name} {name} {name} 1", layout="W")
    with pytest.raises(ValueError, match=r"list.txt:1: expected a path below the root, found"):
        read_list(path, tmp_path, "W")


@pytest.mark.parametrize(
    ("layout", "row"),
    [
        ("S", "a b c"),
        ("S", "a b c 2"),
        ("S", "a\tb\tc\t1"),
        ("P", "a.npz 1"),
        ("W", "a b c live"),
        ("P", "a.npz\tb\t1"),
    ],
)
def test_malformed_rows_say_what_a_row_is(tmp_path, layout, row):
    path = on_disk(tmp_path, f"\n{row}\n", layout=layout)
    with pytest.raises(ValueError, match=r"list.txt:2: expected a row '.*label' with label 0 or 1, found"):
        read_list(path, tmp_path, layout)


def test_a_list_of_another_layout_is_refused(tmp_path):
    path = on_disk(tmp_path, f"{surf('real')} 1", layout="S")
    with pytest.raises(ValueError, match=r"list.txt:1: expected a path of layout W"):
        read_list(path, tmp_path, "W")
    with pytest.raises(ValueError, match="layout: expected one of S, C, W, P, found 'X'"):
        read_list(path, tmp_path, "X")
    with pytest.raises(FileNotFoundError, match="root: expected an existing folder"):
        read_list(path, tmp_path / "nowhere", "S")


def test_padisi_is_matched_by_trial_and_read_as_bgr_infrared_depth(tmp_path):
    data = np.zeros((1, 22, 12, 10), np.float32)
    data[0, :5] = np.array([10, 20, 30, 40, 50], np.float32)[:, None, None] / 255
    (tmp_path / "part").mkdir()
    np.savez(tmp_path / "part" / "ID_000017_a1b2c3_face.npz", data=data)
    path = tmp_path / "list.txt"
    path.write_text("a1b2c3.npz\t1\nzzz.npz\t0\n")
    records, report = read_list(path, tmp_path, "P")
    assert report.rows == (1, 1) and len(report.skipped) == 1 and "zzz" in report.skipped[0]
    samples, _ = load_images(records, size=10)
    assert samples.rgb[0, :, 0, 0].tolist() == [30, 20, 10]
    assert samples.infrared[0, 0, 0, 0] == 40 and samples.depth[0, 0, 0, 0] == 50
    assert samples.live.tolist() == [True] and samples.identity.tolist() == [-1]


def test_padisi_of_another_shape_is_skipped(tmp_path):
    np.savez(tmp_path / "a.npz", data=np.zeros((22, 8, 8), np.float32))
    np.savez(tmp_path / "b.npz", data=np.zeros((1, 22, 8, 8), np.float32))
    path = tmp_path / "list.txt"
    path.write_text("a.npz\t1\nb.npz\t0\n")
    samples, messages = load_images(read_list(path, tmp_path, "P")[0])
    assert samples.live.tolist() == [False]
    assert "list.txt:1" in messages[0] and "(1, 22, height, width)" in messages[0]


def full(layout: str, split: str) -> ListReport:
    """The report on a published list."""
    place = layout, split
    report = ListReport(Path("x"), layout, ROWS[layout][split], KINDS.get(place, {}), {}, {})
    return report._replace(duplicates=DUPLICATES.get(place, 0))


def test_full_lists_are_recognised_by_their_counts():
    for layout, table in ROWS.items():
        for split in table:
            report = full(layout, split)
            assert report.published() == f"as many rows as the published {split} list"
            swapped = report._replace(rows=report.rows[::-1]).published()
            assert f"published {split} list the other way round" in swapped
            assert "not a full published list" in report._replace(rows=(3, 4)).published()


def test_full_lists_with_other_kinds_or_duplicates_say_so():
    s = full("S", "train")
    report = s._replace(listed=s.listed | {"cut eyes": 1800}, duplicates=0)
    assert report.published().endswith(", but 1800 cut eyes where that has 1797, but 0 duplicated where that has 20")
    w = full("W", "train")
    assert "but 3 paper mask where that has 0" in w._replace(listed={"paper mask": 3}).published()


def test_a_thousand_missing_files_are_told_in_a_few_lines(tmp_path):
    rows = (f"{surf('01_e_s')} 0".replace("001.jpg", f"{i:04}.jpg") for i in range(1000))
    path = on_disk(tmp_path, "\n".join(rows), layout="S", images=False)
    records, report = read_list(path, tmp_path, "S")
    assert not records and len(report.skipped) == 1000
    lines = str(report).splitlines()
    assert sum("skipped" in line for line in lines) == 5 and lines[-1] == "  … and 995 more like these"
    assert "kept: nothing" in lines[1] and "1000 without a file" in lines[2] and len(lines) < 12


def test_attack_rows_of_surf_are_counted_by_code(tmp_path):
    text = "\n".join(f"{surf(code)} 0" for code in ("01_e_s", "02_e_b", "05_enm_s"))
    _, report = read_list(on_disk(tmp_path, text, layout="S"), tmp_path, "S")
    assert report.codes == {"01_e_s": 1, "02_e_b": 1, "05_enm_s": 1} and report.listed["cut eyes"] == 2
    assert "  attack rows by code: 01_e_s 1, 02_e_b 1, 05_enm_s 1" in str(report).splitlines()


def test_the_same_row_with_two_labels_is_an_error(tmp_path):
    path = on_disk(tmp_path, f"{surf('real')} 1\n\n{surf('real')} 0", layout="S")
    with pytest.raises(ValueError, match=r"list.txt:3: expected label 1, as in line 1, found 0"):
        read_list(path, tmp_path, "S")


def test_padisi_own_labels_are_attack_positive(tmp_path):
    np.savez(tmp_path / "a.npz", data=np.zeros((1, 22, 8, 8), np.float32))
    np.savez(tmp_path / "b.npz", data=np.zeros((1, 22, 8, 8), np.float32))
    path = tmp_path / "list.txt"
    path.write_text("a.npz\tTrue\nb.npz\tFalse\n")
    records, report = read_list(path, tmp_path, "P")
    assert [record.live for record in records] == [False, True] and report.rows == (1, 1)
    assert "True = attack" in str(report)
    path.write_text("a.npz\t1\nb.npz\t0\n")
    records, report = read_list(path, tmp_path, "P")
    assert [record.live for record in records] == [True, False] and "True" not in str(report)
    path.write_text("a.npz\t1\nb.npz\tFalse\n")
    with pytest.raises(ValueError, match=r"list.txt:1: expected label True or False, as in other rows, found '1'"):
        read_list(path, tmp_path, "P")


def test_overlap_names_shared_rows_and_people(tmp_path):
    def cefa(person: str, frame: str) -> str:
        return " ".join(
            f"CeFA/CeFA-Race/AF/AF-{person}/1_{person}_1_1_1/{m}/{frame}.jpg" for m in ("profile", "depth", "ir")
        )

    lists = {"train": ["299"], "dev": ["300", "301"], "test": ["300", "302"]}
    paths = {name: tmp_path / f"{name}.txt" for name in lists}
    for name, path in paths.items():
        path.write_text("\r\n".join(f"{cefa(person, '0001')} 1" for person in lists[name]))
    told = overlap(paths, "C")
    assert told == f"C: dev and test share 1 row ({cefa('300', '0001').split()[0]}) and 1 person (AF-300)"
    paths["test"].write_text(f"{cefa('300', '0002')} 1")
    assert overlap(paths, "C") == "C: dev and test share 1 person (AF-300)"
    assert overlap({"train": paths["train"], "dev": paths["dev"]}, "C") == ""


def test_colour_of_another_resolution_is_counted_and_read(tmp_path):
    path = on_disk(tmp_path, f"{surf('real')} 1\n{surf('01_e_s')} 0", layout="S")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / surf("real").split()[0])
    loaded = load_records(read_list(path, tmp_path, "S")[0], size=16)
    assert (
        loaded.uneven == 1
        and loaded.samples.rgb.shape == (2, 3, 16, 16)
        and loaded.samples.live.tolist() == [True, False]
    )


@pytest.mark.parametrize("cut", [0, 40, 400])
def test_files_that_are_cut_off_are_skipped(tmp_path, cut):
    for domain in ("W", "P"):
        made = make_split(domain, "train", 3, seed=0)
        path = write_layout(made, tmp_path / domain, domain)
        records, _ = read_list(path, tmp_path / domain, domain)
        records[1].rgb.write_bytes(records[1].rgb.read_bytes()[:cut])
        loaded = load_records(records, workers=2)
        assert loaded.rows == [0, 2] and len(loaded.unreadable) == 1
        assert loaded.unreadable[0].startswith(f"{path}:2: expected a readable image, found")
        assert torch.equal(loaded.samples.rgb, made.rgb[[0, 2]])


def test_a_person_has_the_same_code_in_every_list(tmp_path):
    made = make_split("W", "train", 8, seed=0)
    records, _ = read_list(write_layout(made, tmp_path, "W"), tmp_path, "W")
    whole, part = load_images(records)[0], load_images(records[3:])[0]
    assert torch.equal(whole.identity[3:], part.identity)


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_written_is_read_back(tmp_path, domain):
    made = make_split(domain, "test", 24, seed=7)
    path = write_layout(made, tmp_path, domain, split="test")
    text = path.read_bytes()
    assert (b"\r\n" in text and not text.endswith(b"\n")) != (domain == "P")
    records, report = read_list(path, tmp_path, domain)
    assert not report.skipped and not report.duplicates and report.rows == (12, 12)
    read, messages = load_images(records, crop=False)
    assert not messages
    for name in ("rgb", "depth", "infrared", "live", "domain"):
        assert torch.equal(getattr(read, name), getattr(made, name)), name
    assert not read.corrupted.any()
    assert isinstance(concatenate([made, read]), Samples)
    if domain == "P":  # its list knows live and attack only
        assert set(read.kind_names) == {"live", "attack"} and (read.identity == -1).all()
    else:
        assert read.kind_names == [{"bent print": "print"}.get(kind, kind) for kind in made.kind_names]
        same = made.identity[:, None] == made.identity
        assert torch.equal(read.identity[:, None] == read.identity, same)


def test_a_kind_that_a_layout_cannot_name_is_refused_before_anything_is_written(tmp_path):
    made = make_split("P", "test", 24, seed=7)
    with pytest.raises(ValueError, match="samples: expected kinds that layout S names"):
        write_layout(made, tmp_path / "out", "S")
    assert not (tmp_path / "out").exists()
