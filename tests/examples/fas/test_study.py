"""Studies, from list files to a report, and a folder scored with what they leave behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from fas import scoring, study
from fas.data import hide, normalise
from fas.evaluation.metrics import eer_threshold
from fas.plan import Plan, units
from fas.protocols import cells
from fas.samples import MODALITIES, Samples
from fas.scores import load, results
from fas.sets.layouts import write_layout
from fas.standin import make_split
from fas.systems import ALONE, LATE_MEAN, Output
from fas.training import Options
from PIL import Image

ROOT = Path(__file__).parents[3]


class Tiny(NamedTuple):
    """A source of few samples."""

    parts: dict

    def get(self, seed: int, domain: str, split: str) -> Samples:
        return self.parts[domain, split]

    def identity(self) -> str:
        return f"{len(self.parts)} parts"


@pytest.fixture(scope="module")
def source() -> Tiny:
    pairs = [*((d, s) for d in "CPS" for s in ("train", "dev")), ("W", "test")]
    return Tiny({(d, s): make_split(d, s, 20, seed=6) for d, s in pairs})


@pytest.fixture(scope="module")
def plan(source: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Run once: P1 and P2 of one target, the three single modalities."""
    chosen = tuple(c for p in ("P1", "P2") for c in cells(p) if c.targets == ("W",))
    made = Plan(chosen, tuple(ALONE), (3,), source, tmp_path_factory.mktemp("out"), Options(epochs=1, batch=24))
    assert list(study.run_all(made, 1, lambda unit, done: None)) == []
    return made


def test_p2_costs_no_training_that_p1_has_done(plan: Plan) -> None:
    todo = units(plan)
    assert len(todo) == 3 and all(len(unit.cells) == 4 for unit in todo)
    assert len(list(plan.out.rglob("checkpoint.pt"))) == 3
    both = units(plan._replace(cells=cells("P1") + cells("P2") + cells("P3")))
    assert len(both) == 3 * (4 + 2)


def test_the_late_mean_is_the_mean_of_those_that_see_something(plan: Plan) -> None:
    found = {(r.system, r.cell.missing, r.epoch): r for r in results(plan)}
    assert len(found) == 4 * 4 * 2
    for (system, missing, epoch), r in found.items():
        if system == LATE_MEAN:
            heard = [name for name, m in ALONE.items() if m not in missing]
            assert len(heard) == 3 - len(missing)
            for part in ("dev", "test"):
                scores = [getattr(found[name, missing, epoch], part).scores for name in heard]
                np.testing.assert_allclose(getattr(r, part).scores, sum(scores) / len(scores), rtol=1e-6)


def test_what_is_finished_is_not_trained_again(plan: Plan, source: Tiny, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "fit", refuse)
    again, shown = plan._replace(resume=True), []
    assert list(study.run_all(again, 1, lambda unit, done: shown.append(done))) == []
    assert shown == [1, 1, 1]  # epochs: what is finished counts as done
    with pytest.raises(ValueError, match=r"resume: expected .*run\.json to hold .*'lr': 0\.5.*found .*'lr': 0\.003"):
        list(study.run_all(again._replace(options=plan.options._replace(lr=0.5)), 1, lambda unit, done: None))
    with pytest.raises(ValueError, match=r"resume: expected .*'data': '1 parts'.* found .*'data': '7 parts'"):
        fewer = Tiny({("W", "test"): source.parts["W", "test"]})
        list(study.run_all(again._replace(source=fewer), 1, lambda unit, done: None))
    other = plan._replace(resume=True, options=plan.options._replace(workers=2, device="cuda"))
    assert list(study.run_all(other, 1, lambda unit, done: None)) == []  # where it ran decides nothing


def write_folder(samples: Samples, folder: Path, modalities: tuple[str, ...] = MODALITIES) -> Path:
    for m in modalities:
        (folder / m).mkdir(parents=True)
        for row, image in enumerate(getattr(samples, m)):
            array = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            Image.fromarray(array.contiguous().numpy()).save(folder / m / f"face-{row:02d}.png")
    return folder


def test_scores_of_a_folder_are_those_of_the_study(plan: Plan, source: Tiny, tmp_path: Path, capsys) -> None:
    unit = next(u for u in units(plan) if u.system == "depth alone")
    run = unit.folder(plan.out)
    folder = write_folder(source.get(3, "W", "test"), tmp_path / "faces")
    for epoch in ("last", "best"):
        (expected,) = [r for r in load(unit, unit.cells[0], plan.out) if r.epoch == epoch]
        scoring.main(
            [str(run), str(folder), "--epoch", epoch, "--out", str(tmp_path / "scores.csv"), "--device", "cpu"]
        )
        with (tmp_path / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["name"] for row in rows] == [f"face-{k:02d}" for k in range(20)]
        scores = [float(row["score"]) for row in rows]
        np.testing.assert_allclose(scores, expected.test.scores, atol=1e-6)
        threshold = json.loads((run / "run.json").read_text())["thresholds"][epoch]
        assert threshold == eer_threshold(*expected.dev[:2])
        assert [row["decision"] == "live" for row in rows] == [score >= threshold for score in scores]
        said = capsys.readouterr().out
        assert f"threshold {threshold:+.4f}: equal error rate on the development data of C, P, S, {epoch} epoch" in said


def test_what_a_folder_lacks_is_hidden(source: Tiny, tmp_path: Path) -> None:
    samples = source.get(3, "W", "test")
    folder = write_folder(samples, tmp_path, ("rgb", "infrared"))
    (folder / "rgb" / "face-02.png").unlink()
    (folder / "infrared" / "face-04.png").write_bytes(b"no image")
    (folder / "rgb" / "notes.txt").write_text("not looked at")
    found = scoring.read_folder(folder, 64)
    assert len(found.names) == 19 and "face-04" not in found.names
    (message,) = found.unreadable
    assert str(folder / "infrared" / "face-04.png") in message
    assert found.absent["depth"].all() and not found.absent["infrared"].any()
    assert found.absent["rgb"].nonzero().tolist() == [[2]]
    kept = torch.tensor([row for row in range(20) if row != 4])
    seen = []

    class System(torch.nn.Module):
        def forward(self, inputs):
            seen.append(inputs)
            return Output(torch.zeros(len(inputs["rgb"]), 2))

    scoring.score_folder(System(), found, Options())
    clean = {m: normalise(getattr(samples, m)[kept]) for m in MODALITIES}
    expected = hide(hide(clean, ["depth"]), ["rgb"], torch.arange(19) == 2)
    assert all(torch.equal(seen[0][m], expected[m]) for m in MODALITIES)


def test_errors_name_the_path(plan: Plan, tmp_path: Path) -> None:
    def error(run: Path, folder: Path) -> str:
        with pytest.raises(SystemExit) as stopped:
            scoring.main([str(run), str(folder), "--device", "cpu"])
        return str(stopped.value)

    run = units(plan)[0].folder(plan.out)
    assert f"expected a checkpoint at {tmp_path / 'checkpoint.pt'}, found none" in error(tmp_path, tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    assert f"a finished training at {tmp_path / 'run.json'}, found none" in error(tmp_path, tmp_path)
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"system": "mystery"}))
    assert f"expected {tmp_path / 'run.json'} to name one of" in error(tmp_path, tmp_path)
    assert f"in {tmp_path / 'rgb'}, {tmp_path / 'depth'}, {tmp_path / 'infrared'}, found none" in error(run, tmp_path)


def command(*arguments: str, cwd: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "fas_surf.py"), *arguments],
        capture_output=True, text=True, cwd=cwd, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_command_line_on_list_files_of_all_four_layouts(source: Tiny, tmp_path: Path) -> None:
    lists = []
    for (domain, split), part in source.parts.items():
        samples = part
        if domain == "P":
            samples = samples._replace(kind=torch.where(samples.live, 0, 13))
        path = write_layout(samples, tmp_path / "data", domain, split=f"{domain}-{split}")
        lists.append(f"{domain}:{split}={path}")
    broken = tmp_path / "data" / "S-train.txt"
    broken.write_text(broken.read_text() + "\nCASIA-SURF-CROP/real_part/CLKJ_1/real.rssdk/color/1.jpg b c 1")
    text = command(
        "--data", "data", "--lists", *lists, "--systems", "ViT", "MMDG", "--epochs", "1", "--batch", "24",
        "--jobs", "1", "--device", "cpu", "--out", "out", "--cache", "cache", cwd=tmp_path,
    )  # fmt: skip
    assert f"{broken}:21" in text and "MMDG" in text
    assert "MMDG" in (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "results.csv").open() as file:
        assert {row["system"] for row in csv.DictReader(file)} == {"ViT", "MMDG"}
    folder = write_folder(source.get(0, "W", "test"), tmp_path / "faces", ("rgb", "depth"))
    scored = command("score", "out/CPS/seed-0/MMDG", str(folder), cwd=tmp_path).splitlines()
    assert scored[0].startswith("threshold ") and len(scored) == 21
    assert all(line.split()[2] in ("live", "attack") and line.endswith("without infrared") for line in scored[1:])
