"""Draws the pictures of the rooms.

python docs/gallery                      # all of them, into docs/pictures/rooms/
python docs/gallery surgery adapters     # these
python docs/gallery --out /tmp/pictures  # elsewhere
"""

import argparse
import importlib
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOMS = sorted(path.stem for path in HERE.glob("[a-z]*.py") if "def draw()" in path.read_text(encoding="utf-8"))


def main() -> None:
    """Draw what was asked for, and print each picture's caption."""
    parser = argparse.ArgumentParser("docs/gallery", description="Draws the pictures of the rooms.")
    parser.add_argument("rooms", nargs="*", metavar="NAME", help=", ".join(ROOMS))
    parser.add_argument("--out", type=Path, default=HERE.parent / "pictures/rooms", metavar="FOLDER")
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"NAME: expected some of {', '.join(ROOMS)}, found {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    sys.path[0] = str(HERE.parent)  # the folder of the package in place of the package
    save = importlib.import_module("gallery.style").save
    for room in arguments.rooms or ROOMS:
        picture = importlib.import_module(f"gallery.{room}")
        print(f"{save(picture.draw(), arguments.out / f'{room}.png')}: {picture.CAPTION}")


if __name__ == "__main__":
    main()
