"""Which ViT a name means, and where its weights come from: a local file, or nowhere. Nothing is downloaded.

    timm:vit_tiny_patch16_224             a model of timm by its own name; weights from .safetensors or .pth
    transformers:FOLDER                   a ViT of transformers: FOLDER/config.json; weights from .safetensors
    transformers:google/vit-base-patch16-224    the same, from what transformers has already in its cache

Where no file is named, transformers' own ``model.safetensors`` beside the config.json is taken if it is there.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from .shared import ViT

FILES = {"timm": (".safetensors", ".pth"), "transformers": (".safetensors",)}


def vit_of(name: str, weights: Path | str | None = None) -> Callable[[], ViT]:
    """What builds the ViT `name`, tried out once here; a line on stderr says whose weights it has.

    Args:
        name: "timm:MODEL" or "transformers:FOLDER_OR_NAME".
        weights: a file that holds the whole ViT. Only the head that a checkpoint may have for its own task is left out.
    """
    library, _, model = name.partition(":")
    if library not in FILES or not model:
        raise ValueError(
            f'name: expected "small", "timm:MODEL" (timm:vit_tiny_patch16_224) or "transformers:FOLDER", found {name!r}'
        )
    path = None if weights is None else readable(Path(weights), FILES[library])
    try:
        room = import_module(f".{library}", __package__)
    except ModuleNotFoundError as error:
        raise ImportError(f"name: expected {library} to be installed for {name}: pip install {library}") from error
    path = room.weights_beside(model) if path is None else path
    make = partial(room.vit, model, path)
    with torch.random.fork_rng(devices=[]):
        make()
    note = "RANDOM weights, for no file was named: it shows the mechanics alone" if path is None else f"weights: {path}"
    print(f"backbone {name}, {note}", file=sys.stderr)
    return make


def readable(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The same path, if it is a file of this kind."""
    if path.suffix not in suffixes or not path.is_file():
        what = "no such file" if path.suffix in suffixes else "another kind of file"
        raise ValueError(f"weights: expected a file {' or '.join(suffixes)}, found {path}: {what}")
    return path


def refuse(path: Path, model: str, wrong: Mapping[str, Collection]) -> None:
    """Complain of {"missing": keys, …}, unless there is nothing."""
    found = "".join(f"\n{len(keys)} {what}, such as {sorted(keys)[:3]}" for what, keys in wrong.items() if keys)
    if found:
        raise ValueError(f"weights: expected {path} to hold {model}, found{found}")
