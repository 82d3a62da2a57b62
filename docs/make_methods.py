"""Writes docs/methods.md: one row for each docstring of the library that has a "Method:" section.

python docs/make_methods.py           # write it
python docs/make_methods.py --check   # exit with 1 if it is not what would be written
"""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import balancekit

PAGE = Path(__file__).with_name("methods.md")
FIELDS = ("Name", "Paper", "Equation", "Hook", "Cost", "Modalities", "Test")
HEAD = """# Methods

Every method of the library, from the docstrings (`python docs/make_methods.py`). *Hook* says where it takes hold of a
training, *cost* what it takes beyond an ordinary step, *modalities* how it goes on beyond two; for two it is what the
paper prints. Each is tested against a slow re-derivation in float64 that shares no code with it, in
`tests/oracles/`.

"""


def methods() -> list[tuple[str, str, dict[str, str]]]:
    """(room, name in it, fields) of every method, by room."""
    found = {}
    for module in pkgutil.walk_packages(balancekit.__path__, "balancekit."):
        if module.name.rsplit(".", 1)[-1].startswith("_") or module.name == "balancekit.fused":
            continue  # private, or the same functions once more
        room = importlib.import_module(module.name)
        for name in getattr(room, "__all__", ()):
            each = getattr(room, name)
            text = inspect.getdoc(each) if callable(each) else None
            if text and "Method:\n" in text:
                found.setdefault(id(each), (module.name.removeprefix("balancekit."), name, fields(text)))
    return sorted(found.values(), key=lambda row: row[:2])


def fields(text: str) -> dict[str, str]:
    """The entries of a "Method:" section."""
    section = text.split("Method:\n", 1)[1].split("\n\n", 1)[0]
    entries = dict(line.strip().split(": ", 1) for line in section.splitlines())
    if tuple(entries) != FIELDS:
        raise ValueError(f"Method: expected the fields {', '.join(FIELDS)}, found {', '.join(entries)}")
    return entries


def page() -> str:
    """The page."""
    lines = ["| method | name | paper | equation | hook | cost | modalities | test |", "|" + "---|" * 8]
    for room, name, f in methods():
        cells = (f["Name"], f"`{room}.{name}`", *(f[k] for k in FIELDS[1:-1]), f"`{Path(f['Test']).stem}`")
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or compare it."""
    if "--check" in sys.argv[1:]:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
