"""One self-contained HTML file: text, tables and pictures, no script, no link to anything outside."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from fas.files import whole

from .layout import Table


class Picture(NamedTuple):
    """A PNG file, and what to look for in it."""

    path: Path
    caption: str


class Section(NamedTuple):
    """A heading with plain text (a blank line parts paragraphs), tables and pictures."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f3f3f0; --faint: #555 }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #262626; --faint: #aaa } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin-top: 2.5rem;
  border-top: 1px solid var(--line); padding-top: 1rem }
p, dl { max-width: 46rem }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1rem }
dt { font-weight: 600 } dd { margin: 0; overflow-wrap: anywhere }
.table { margin: 1rem 0 1.5rem } .scroll { overflow-x: auto }
.note, figcaption { color: var(--faint); font-size: .9rem }
.title { font-weight: 600; margin: 0 0 .4rem } .note { margin: .4rem 0 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; font-weight: 600 }
thead th { background: var(--soft) }
figure { margin: 0 } figure img { max-width: 100%; height: auto; background: white }
figcaption { max-width: 46rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem;
  align-items: start; margin-top: 1rem }
@media (max-width: 30rem) { body { padding: .75rem }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem } }
"""


def write_html(path: Path | str, *, title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> Path:
    """Write the page; `facts` are shown as a list on top. The file is there whole or not at all."""
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    body = "\n".join(_section(section) for section in sections)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<dl>{terms}</dl>\n{body}\n</body></html>\n"
    )
    with whole(Path(path)) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(path)


def _section(section: Section) -> str:
    text = "".join(f"<p>{escape(part)}</p>" for part in section.text.split("\n\n") if part)
    tables = "".join(_table(table) for table in section.tables)
    pictures = "".join(_picture(picture) for picture in section.pictures)
    grid = f'<div class="pictures">{pictures}</div>' if pictures else ""
    return f"<section><h2>{escape(section.title)}</h2>{text}{tables}{grid}</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table"><p class="title">{escape(table.title)}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</div>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(Path(picture.path).read_bytes()).decode()
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
