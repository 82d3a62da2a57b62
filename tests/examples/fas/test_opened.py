"""A list in one call: truth, the cache, and marks of corruption that follow the crop."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fas.samples import Samples
from fas.sets import opened
from fas.sets.layouts import write_layout
from fas.sets.opened import open_list, save_truth
from fas.standin import make_split


def written(root: Path, domain: str, count: int = 12) -> tuple[Samples, Path]:
    made = make_split(domain, "test", count, seed=2)
    path = write_layout(made, root, domain, split="test")
    save_truth(made, path)
    return made, path


def assert_same(a: Samples, b: Samples):
    for name, x, y in zip(Samples._fields, a, b, strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y), name


@pytest.mark.parametrize("domain", ["S", "W", "P"])
def test_with_the_truth_beside_it_nothing_is_lost(tmp_path, domain):
    made, path = written(tmp_path, domain)
    read = open_list(path, tmp_path, domain, workers=2)
    assert_same(read.samples, made)
    assert "truth-test.npz" in read.report and "12 rows (6 live, 6 attack)" in read.report


def test_the_truth_follows_its_row_when_others_are_skipped(tmp_path):
    made, path = written(tmp_path, "W")
    names = [line.split() for line in path.read_text().splitlines()]
    (tmp_path / names[0][1]).unlink()
    (tmp_path / names[4][0]).write_bytes(b"no image")
    read = open_list(path, tmp_path, "W")
    assert_same(read.samples, made.select([1, 2, 3, *range(5, 12)]))
    assert "1 without a file, 1 unreadable" in read.report
    assert (
        f"skipped {path}:1: expected a file" in read.report and f"skipped {path}:5: expected a readable" in read.report
    )


def test_the_truth_of_another_list_is_refused(tmp_path):
    made, path = written(tmp_path, "W")
    for other in (made.select(range(11)), made.select(torch.arange(11, -1, -1))):
        save_truth(other, path)
        with pytest.raises(ValueError, match="expected the truth on the list beside it"):
            open_list(path, tmp_path, "W")


def test_marks_of_corruption_follow_the_crop(tmp_path):
    blank = make_split("C", "test", 2, seed=0)
    rgb = torch.zeros_like(blank.rgb)
    rgb[..., 16:48, 8:56] = 200  # tokens 2 … 5 of the rows, 1 … 6 of the columns
    failure = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(2, 3, 8, 8).clone()
    path = write_layout(blank._replace(rgb=rgb), tmp_path, "C")
    save_truth(blank._replace(failure=failure), path)
    read = open_list(path, tmp_path, "C").samples
    assert (read.rgb == 200).all()
    rows, columns = [2, 2, 3, 3, 4, 4, 5, 5], [1, 2, 2, 3, 4, 5, 5, 6]
    assert torch.equal(read.failure, failure[..., rows, :][..., columns])


def test_what_the_cache_keeps_is_what_was_read(tmp_path, monkeypatch):
    _, path = written(tmp_path / "set", "C")
    names = path.read_text().split()
    (tmp_path / "set" / names[1]).write_bytes(b"no image")
    first = open_list(path, tmp_path / "set", "C", size=32, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(opened, "load_records", None)  # nothing is read again
    again = open_list(path, tmp_path / "set", "C", size=32, cache=tmp_path / "cache")
    assert_same(first.samples, again.samples)
    assert again.report == f"{first.report}\n  read from {kept}" and "1 unreadable" in first.report


def test_the_cache_notices_every_change(tmp_path):
    root, cache = tmp_path / "set", tmp_path / "cache"
    _, path = written(root, "W")

    def entries(**changes: int) -> int:
        open_list(path, root, "W", cache=cache, **changes)
        return len(list(cache.iterdir()))

    assert entries() == entries() == 1
    assert entries(size=32) == 2
    image = root / path.read_text().split()[0]
    os.utime(image, ns=(1, 1))
    assert entries() == 3
    image.unlink()
    assert entries() == 4
    path.write_bytes(path.read_bytes() + b"\r\n")
    assert entries() == 5
    (root / "truth-test.npz").unlink()
    assert entries() == 6


def test_a_root_without_any_image_says_so(tmp_path):
    _, path = written(tmp_path / "set", "W")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"test.txt: expected images below .*empty, found none; .*test.txt:1"):
        open_list(path, tmp_path / "empty", "W")


def test_threads_change_nothing(tmp_path):
    _, path = written(tmp_path, "C")
    assert_same(open_list(path, tmp_path, "C").samples, open_list(path, tmp_path, "C", workers=3).samples)
    with np.load(tmp_path / "truth-test.npz") as truth:
        assert truth.files == ["kind", "identity", "failure"]
