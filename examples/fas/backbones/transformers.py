"""A ViT of transformers, from a folder with its config.json, or from what lies in the library's cache."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import ViTConfig, ViTModel
from transformers.utils import cached_file, logging

from .shared import ViT
from .weights import refuse

HEAD = re.compile(r"(vit\.)?(pooler|classifier)\.")  # of the task that a checkpoint was made for


def config_file(name: str) -> Path:
    """Where the model's config.json lies on this machine."""
    try:
        found = cached_file(name, "config.json", local_files_only=True)
    except (OSError, ValueError):
        found = None
    if found is None:
        expected = "a folder with a config.json, or a model in the cache of transformers (nothing is downloaded)"
        raise ValueError(f"name: expected {expected}, found {name}")
    return Path(found)


def weights_beside(name: str) -> Path | None:
    """The file of weights in the same folder."""
    path = config_file(name).with_name("model.safetensors")
    return path if path.is_file() else None


def vit(name: str, weights: Path | None) -> ViT:
    """Build the model, random or with all weights of a file."""
    path = config_file(name)
    kind = ViTConfig.get_config_dict(str(path))[0].get("model_type")
    if kind != "vit":
        raise ValueError(f'name: expected a config of model_type "vit", found {kind!r} in {path}')
    config = ViTConfig.from_json_file(path)
    with quiet():
        model = ViTModel(config, add_pooling_layer=False) if weights is None else load(config, path, weights)
    patches = model.embeddings.patch_embeddings
    size = tuple(patches.image_size)
    grid = tuple(side // patch for side, patch in zip(size, patches.patch_size, strict=True))
    return ViT(model.embeddings, model.layers, model.layernorm, "attention", size, grid, config.hidden_size)


def load(config: ViTConfig, beside: Path, path: Path) -> ViTModel:
    """Every weight from the file, and every weight of the file except a head."""
    try:
        state = {key: value for key, value in load_file(path).items() if not HEAD.match(key)}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights: expected a safetensors file that opens, found {path}: {error}") from error
    model, found = ViTModel.from_pretrained(  # knows the prefix "vit." and the names of older releases
        None, config=config, state_dict=state, dtype=torch.float32, add_pooling_layer=False,
        ignore_mismatched_sizes=True, output_loading_info=True,
    )  # fmt: skip
    refuse(path, f"the ViT of {beside}", found)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting what is an error here anyway; its settings are then as they were."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
