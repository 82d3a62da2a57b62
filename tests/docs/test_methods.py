"""The table of methods is what the docstrings say, and each row names a test that exists."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("make_methods", ROOT / "docs/make_methods.py")
assert spec is not None
assert spec.loader is not None
make_methods = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_methods)


def test_the_page_is_what_the_docstrings_say() -> None:
    assert make_methods.PAGE.read_text(encoding="utf-8") == make_methods.page()


def test_there_are_twenty_methods_and_each_test_exists_and_names_it() -> None:
    rows = make_methods.methods()
    assert len(rows) >= 20
    for _, name, fields in rows:
        assert name in (ROOT / fields["Test"]).read_text(encoding="utf-8"), f"{fields['Test']} does not name {name}"
