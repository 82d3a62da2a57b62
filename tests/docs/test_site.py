"""What is around the pages: the reference that is written from docstrings, and the list of versions."""

import importlib
import pkgutil
import sys
from pathlib import Path

import balancekit

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
publish, reference = importlib.import_module("publish"), importlib.import_module("reference")
sys.path.remove(str(DOCS))


def test_every_room_has_a_page_and_its_reference() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(balancekit.__path__) if not module.name.startswith("_")}
    assert set(reference.ROOMS) == rooms == {page.stem for page in (DOCS / "rooms").glob("*.md")}
    index = (DOCS / "index.md").read_text()
    assert all(f"<rooms/{room}>" in index and f"\nreference/{room}\n" in index for room in rooms)


def test_the_reference_has_all_names_and_the_equations() -> None:
    for room in reference.ROOMS:
        text = "\n".join(reference.page(room))
        assert all(
            f"balancekit.{room}.{name}\n" in text for name in importlib.import_module(f"balancekit.{room}").__all__
        )
    modulation = "\n".join(reference.page("modulation"))
    assert ".. code-block:: text\n\n    s_m = Σ_i softmax(o_m)_i[y_i]                       Eq. 8\n" in modulation


def test_every_name_is_on_the_one_page() -> None:
    text = "\n".join(reference.whole())
    for room in reference.ROOMS:
        for name in importlib.import_module(f"balancekit.{room}").__all__:
            assert f"`~balancekit.{room}.{name}`\n     - " in text


def test_the_gallery_has_every_picture() -> None:
    text = "\n".join(reference.pictures())
    drawn = [picture.stem for picture in (DOCS / "pictures/rooms").glob("*.png")]
    assert len(drawn) >= 12
    assert all(f".. figure:: /pictures/rooms/{room}.png" in text for room in drawn)


def test_equations_are_shown_up_to_the_first_section() -> None:
    lines = ["Title.", "", "    a = b", "    c = d", "", "Text.", "", "Args:", "    x: one.", "", "    y: two."]
    shown = ["Title.", "", ".. code-block:: text", "", "    a = b", "    c = d", "", *lines[5:]]
    assert reference.with_equations(lines) == shown


def test_versions_are_listed_newest_first(tmp_path: Path) -> None:
    built, site = tmp_path / "built", tmp_path / "site"
    built.mkdir()
    for version in ("0.9.1", "0.10.0", "0.2.0", "0.10.0"):
        (built / "index.html").write_text(version)
        publish.publish(built, site, version)
    text = (site / "index.html").read_text()
    assert text.index("0.10.0/") < text.index("0.9.1/") < text.index("0.2.0/")
    assert (site / "0.9.1/index.html").read_text() == "0.9.1"
