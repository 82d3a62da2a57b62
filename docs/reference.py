"""Writes the reference before the documentation is built: a page a room, the whole library on one, and the gallery.

A page begins with the room's docstring. Then come its files in the order of its ``__init__``, each with the docstring
of the file, where the equations are, and what the room exports of it.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = (
    "branches", "surgery", "prototypes", "modulation", "losses", "sampling", "schedules", "uncertainty", "adapters",
    "domains", "diagnostics", "plotting", "fused", "testing",
)  # fmt: skip
SECTIONS = ("Args", "Returns", "Raises", "Yields", "Example", "Method")
FOLDER = Path(__file__).parent / "reference"


def files(room: ModuleType) -> dict[str, list[str]]:
    """The names that a room exports, by the module that defines them."""
    found: dict[str, list[str]] = {}
    for name in room.__all__:
        home = getattr(getattr(room, name), "__module__", room.__name__)
        found.setdefault(home if home.startswith("balancekit.") else room.__name__, []).append(name)
    order = list(dict.fromkeys(line.split()[1] for line in inspect.getsource(room).splitlines() if line[:5] == "from "))
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def with_equations(lines: list[str]) -> list[str]:
    """A docstring whose indented blocks, up to its first section ("Args:"), are shown as they are written."""
    found: list[str] = []
    block, sections = False, False
    for index, line in enumerate(lines):
        sections = sections or (line.endswith(":") and line[:-1] in SECTIONS)
        if line[:1] not in ("", " "):
            block = False
        elif line and not block and not sections and not "".join(lines[max(index - 2, 0) : index]).endswith("::"):
            block = index > 0 and not lines[index - 1]
            found += [".. code-block:: text", ""] if block else []
        found.append(line if block else bars(line))
    return found


def bars(line: str) -> str:
    """The bars of |x| are no markup, where they are prose."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    return "``".join(part if odd % 2 else part.replace("|", r"\|") for odd, part in enumerate(line.split("``")))


def underlined(title: str, mark: str) -> str:
    return f"{title}\n{mark * len(title)}\n"


def page(name: str) -> Iterator[str]:
    """The page of a room, in reStructuredText."""
    room = importlib.import_module(f"balancekit.{name}")
    yield underlined(name, "=")
    yield f"The room's page, with examples: :doc:`/rooms/{name}`.\n"
    yield f".. automodule:: {room.__name__}\n"
    for home, names in files(room).items():
        lesson = importlib.import_module(home).__doc__ or ""
        if home != room.__name__:
            title, _, rest = lesson.partition("\n")
            yield underlined(title.rstrip("."), "-")
            yield "\n".join(with_equations(rest.splitlines())) + "\n"
        for each in names:
            thing = getattr(room, each)
            if not callable(thing):
                yield f".. py:data:: {room.__name__}.{each}\n\n   {first_line(room, each)}\n"
                continue
            kind, members = ("class", "   :members:\n") if inspect.isclass(thing) else ("function", "")
            yield f".. auto{kind}:: {room.__name__}.{each}\n{members}"


def first_line(room: ModuleType, name: str) -> str:
    """The first sentence of a name's docstring."""
    text = inspect.getdoc(getattr(room, name)) if callable(getattr(room, name)) else below(room, name)
    return bars((text or "").partition("\n\n")[0].replace("\n", " "))


def below(room: ModuleType, name: str) -> str:
    """The string below the assignment of a name, in one of the files of the room."""
    for file in sorted(Path(str(room.__file__)).parent.glob("*.py")):
        for line, following in pairwise(ast.parse(file.read_text(encoding="utf-8")).body):
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name:
                return ast.literal_eval(following.value)  # type: ignore[attr-defined]
    raise LookupError(name)


def whole() -> Iterator[str]:
    """Every public name with the first sentence of its docstring."""
    yield underlined("The whole library on one page", "=")
    for name in ROOMS:
        room = importlib.import_module(f"balancekit.{name}")
        yield underlined(name, "-")
        yield (room.__doc__ or "").partition("\n\n")[0].replace("\n", " ") + "\n"
        yield ".. list-table::\n   :widths: 35 65\n"
        for each in sorted(room.__all__, key=str.lower):
            yield f"   * - :py:obj:`~balancekit.{name}.{each}`\n     - {first_line(room, each)}"
        yield ""


def pictures() -> Iterator[str]:
    """The pictures of the rooms with what they show, as docs/gallery says it."""
    yield underlined("Gallery", "=")
    yield "Drawn with the library itself, from its own functions and plots: ``make gallery``.\n"
    for room in ROOMS:
        file = Path(__file__).parent / f"gallery/{room}.py"
        if file.exists():
            lines = ast.parse(file.read_text(encoding="utf-8")).body
            said = {ast.unparse(line.targets[0]): line.value for line in lines if isinstance(line, ast.Assign)}
            yield f"{underlined(room, '-')}\n.. figure:: /pictures/rooms/{room}.png\n   :target: ../rooms/{room}.html\n"
            yield f"   {ast.literal_eval(said['CAPTION'])}\n"


def write(_: Any) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in ROOMS:
        (FOLDER / f"{name}.rst").write_text("\n".join(page(name)), encoding="utf-8")
    (FOLDER / "index.rst").write_text("\n".join(whole()), encoding="utf-8")
    (FOLDER / "gallery.rst").write_text("\n".join(pictures()), encoding="utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", show_equations, priority=100)  # before napoleon makes fields of sections
    app.connect("autodoc-skip-member", skip_fields)


def skip_fields(_app: Any, _kind: str, _name: str, thing: Any, skip: bool, _options: Any) -> bool:
    """The fields of a named tuple are in its docstring."""
    return skip or type(thing).__name__ == "_tuplegetter"


def show_equations(_app: Any, _kind: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = with_equations(lines)
