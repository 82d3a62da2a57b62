"""The pictures of the rooms: each is drawn, labelled and the same every time, and ReGrad's arrows are ReGrad's."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from balancekit.diagnostics import History, NullEffectWarning
from balancekit.plotting import plot
from docs.gallery import __main__ as gallery
from docs.gallery import branches, sampling, surgery

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures/rooms"


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def unlabelled(axes: Axes) -> list[str]:
    """The axes of a panel that show numbers and do not say of what; a row or column that shares them says it once."""
    ticked = {"x": axes.xaxis, "y": axes.yaxis} if axes.axison else {}
    return [
        name
        for name, axis in ticked.items()
        if any(label.get_visible() and label.get_text() for label in axis.get_ticklabels())
        and not axis.get_label().get_text()
    ]


@pytest.mark.parametrize("room", gallery.ROOMS)
def test_every_picture_is_drawn_and_labelled(room: str) -> None:
    module = importlib.import_module(f"docs.gallery.{room}")
    with torch.random.fork_rng([]):
        figure = module.draw()
    assert pixels(figure).std() > 10  # not a blank sheet
    assert not [missing for axes in figure.axes for missing in unlabelled(axes)]
    assert module.CAPTION.endswith(".")
    assert module.CAPTION.count(". ") == 0, "a caption is one sentence"


@pytest.mark.parametrize("room", gallery.ROOMS)
def test_every_picture_is_in_the_documentation_and_small(room: str) -> None:
    path = PICTURES / f"{room}.png"
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        assert image.width == 1120


def test_no_other_picture_is_there() -> None:
    assert {path.stem for path in PICTURES.iterdir()} == set(gallery.ROOMS)


def test_a_picture_is_the_same_every_time() -> None:
    with torch.random.fork_rng([]):
        first, second = pixels(sampling.draw()), pixels(sampling.draw())
    assert np.array_equal(first, second)


def test_the_arrows_of_surgery_are_those_of_equation_5() -> None:
    seen = set()
    for case in surgery.cases():
        slow, fast = case.slow.tolist(), case.fast.tolist()
        dot = sum(a * b for a, b in zip(slow, fast, strict=True))
        square = sum(a * a for a in slow)
        along = [dot / square * a for a in slow]
        kept = along if dot > 0 else [f - a for f, a in zip(fast, along, strict=True)]
        assert case.result.tolist() == pytest.approx([s + k for s, k in zip(slow, kept, strict=True)], abs=1e-6)
        assert case.relation == ("agree" if dot > 0 else "conflict")
        own = slow if case.branch == "slow" else fast
        assert own[0] > 0
        assert own[1] == pytest.approx(0, abs=1e-6)
        seen.add((case.branch, case.relation))
    assert len(seen) == 4


def test_the_arrows_that_are_drawn_are_the_cases() -> None:
    for panel, case in zip(surgery.draw().axes, surgery.cases(), strict=True):
        slow, fast, result = (tuple(v.tolist()) for v in (case.slow, case.fast, case.result))
        arrows = [(arrow.xyann, arrow.xy) for arrow in panel.texts if isinstance(arrow, Annotation)]
        assert arrows == [((0, 0), fast), ((0, 0), slow), (slow, result)]


def test_the_runner_draws_what_it_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "docs/gallery", "branches", "--out", str(tmp_path)]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["branches.png"]
    assert printed.endswith(f"{branches.CAPTION}\n")


def test_lines_of_a_plot_differ_in_grey_and_alarms_say_their_cause() -> None:
    history = History()
    history.log({"coefficient/audio": 0.3, "coefficient/video": 1.0, "efficacy/audio": 1.0})
    with pytest.warns(NullEffectWarning):
        history.alarm("cancelled", "audio", "it does nothing")
    ax = plot(history, "coefficient")
    plot(history, "efficacy", ax=ax)
    lines = [line for line in ax.lines if line.get_label() != "_alarm"]
    assert [line.get_label() for line in lines] == ["audio", "video", "audio"]
    assert len({line.get_linestyle() for line in lines}) == 3
    assert {text.get_text() for text in ax.texts} == {"cancelled"}
