"""The whole stand-in on disk: what is written, when it is written again, and what a kill leaves."""

import json
from pathlib import Path

import pytest
import torch
from fas.samples import DOMAINS, SPLITS
from fas.sets import layouts
from fas.sets.layouts import write_standin
from fas.sets.opened import open_list
from fas.standin import make_split

FEW = {"train": 6, "dev": 3, "test": 8}


def state(root: Path) -> dict[str, int]:
    """When each file was written."""
    return {str(file.relative_to(root)): file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict[tuple[str, str], Path]]:
    root = tmp_path_factory.mktemp("stand-in")
    return root, write_standin(root, seed=5, counts=FEW, workers=2)


def test_the_loader_of_the_real_sets_reads_it_all(written):
    root, lists = written
    assert list(lists) == [(domain, split) for domain in DOMAINS for split in SPLITS]
    for (domain, split), path in lists.items():
        assert path == root / domain / f"{split}.txt"
        read = open_list(path, path.parent, domain).samples
        made = make_split(domain, split, FEW[split], seed=5)
        for name in ("live", "kind", "domain", "identity"):
            assert torch.equal(getattr(read, name), getattr(made, name)), name
        if domain != "C":  # whose borders are cut away
            assert all(torch.equal(a, b) for a, b in zip(read, made, strict=True))
    assert not list(root.glob("*.partial"))


def test_what_is_there_is_not_written_again(written):
    root, lists = written
    before = state(root)
    assert write_standin(root, seed=5, counts=FEW, workers=1) == lists
    assert state(root) == before


def test_another_recipe_replaces_it(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "DOMAINS", ("W",))
    one = write_standin(tmp_path, seed=5, counts=FEW, workers=1)["W", "train"]
    first = open_list(one, one.parent, "W").samples
    write_standin(tmp_path, seed=6, counts=FEW | {"train": 2}, workers=1)
    second = open_list(one, one.parent, "W").samples
    assert len(second.live) == 2 and not torch.equal(first.rgb[:2], second.rgb)
    monkeypatch.setattr(layouts, "VERSION", layouts.VERSION + 1)
    before = state(tmp_path)
    write_standin(tmp_path, seed=6, counts=FEW | {"train": 2}, workers=1)
    assert all(time > before[name] for name, time in state(tmp_path).items())


def test_a_kill_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "DOMAINS", ("S", "W"))

    def killed(samples, path):
        if "W.partial" in str(path) and path.stem == "dev":
            raise KeyboardInterrupt
        save(samples, path)

    save = layouts.save_truth
    monkeypatch.setattr(layouts, "save_truth", killed)
    with pytest.raises(KeyboardInterrupt):
        write_standin(tmp_path, seed=5, counts=FEW, workers=1)
    assert not (tmp_path / "W").exists()
    (tmp_path / "W.partial" / "left over.png").write_bytes(b"half")
    monkeypatch.setattr(layouts, "save_truth", save)
    lists = write_standin(tmp_path, seed=5, counts=FEW, workers=1)
    assert all(path.is_file() for path in lists.values()) and not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.rglob("left over.png"))
    assert json.loads((tmp_path / "W" / "stand-in.json").read_text())["seed"] == 5


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "C").mkdir()
    (tmp_path / "C" / "precious.txt").write_text("the real CeFA")
    with pytest.raises(
        FileExistsError, match=r"root: expected .* to be absent, empty or a stand-in, found other files"
    ):
        write_standin(tmp_path, seed=0, counts=FEW, workers=1)
    assert list(state(tmp_path)) == ["C/precious.txt"]


def test_counts_of_all_splits_are_needed(tmp_path):
    with pytest.raises(ValueError, match="counts: expected a number for each of train, dev, test, found"):
        write_standin(tmp_path, seed=0, counts={"train": 3}, workers=1)
