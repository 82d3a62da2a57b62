"""Puts the built documentation into the folder of a site, beside that of other versions.

python docs/publish.py SITE     # docs/_build/html -> SITE/<version>, and a list of all versions in SITE/index.html
"""

import shutil
import sys
from pathlib import Path

import balancekit

BUILT = Path(__file__).parent / "_build/html"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>balancekit</title>
<h1>balancekit</h1>
<p>The documentation of each version, the newest first:</p>
<ul>
{items}
</ul>
</html>
"""


def number(folder: Path) -> list[int]:
    """0.10.0 is newer than 0.9.1."""
    return [int(part) for part in folder.name.split(".")]


def publish(built: Path, site: Path, version: str) -> None:
    """Copy, in place of what is there of the same version, and list."""
    shutil.rmtree(site / version, ignore_errors=True)
    shutil.copytree(built, site / version)
    versions = sorted((index.parent for index in site.glob("[0-9]*/index.html")), key=number, reverse=True)
    items = "\n".join(f'<li><a href="{folder.name}/index.html">{folder.name}</a></li>' for folder in versions)
    (site / "index.html").write_text(PAGE.format(items=items), encoding="utf-8")


if __name__ == "__main__":
    publish(BUILT, Path(sys.argv[1]), balancekit.__version__)
