"""A VisionTransformer of timm, with a class token and no registers; ``timm.list_models("vit_*")`` has the names."""

import re
from pathlib import Path
from pickle import UnpicklingError

import timm
from safetensors import SafetensorError
from timm.models import load_state_dict
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .shared import ViT
from .weights import refuse

HEAD = re.compile(r"(head|pre_logits)\.")  # of the task that a checkpoint was made for


class Embed(nn.Module):
    """What comes before the blocks, of a model that has lost them."""

    def __init__(self, rest: VisionTransformer) -> None:
        super().__init__()
        self.rest = rest

    def forward(self, images: Tensor) -> Tensor:
        """Tokens "b 1+n d" of images "b 3 h w"."""
        return self.rest.forward_features(images)


def weights_beside(name: str) -> None:
    """A name of timm has no folder."""


def vit(name: str, weights: Path | None) -> ViT:
    """Build the model, random or with all weights of a file."""
    if not timm.is_model(name):
        raise ValueError(f"name: expected a model of timm, such as those of timm.list_models('vit_*'), found {name!r}")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    plain = isinstance(model, VisionTransformer) and all(isinstance(block, Block) for block in model.blocks)
    if not plain or model.num_prefix_tokens != 1 or model.global_pool != "token":
        what = f"{type(model).__name__}" + (f" with {model.num_prefix_tokens} such tokens" if plain else "")
        raise ValueError(
            f"name: expected a VisionTransformer of timm read at its one class token, found {name}: {what}"
        )
    if weights is not None:
        load(model, name, weights)
    blocks, norm = model.blocks, model.norm
    model.blocks, model.norm = nn.Sequential(), nn.Identity()
    patches = model.patch_embed
    return ViT(Embed(model), blocks, norm, "attn", patches.img_size, patches.grid_size, model.embed_dim)


def load(model: VisionTransformer, name: str, path: Path) -> None:
    """Every weight from the file, and every weight of the file except a head."""
    try:
        state = load_state_dict(str(path), weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError) as error:
        raise ValueError(f"weights: expected a checkpoint that opens, found {path}: {error}") from error
    found = {key: value for key, value in state.items() if not HEAD.match(key)}
    expected = model.state_dict()
    both = found.keys() & expected.keys()
    differ = {
        f"{key} {tuple(found[key].shape)}, not {tuple(expected[key].shape)}"
        for key in both
        if found[key].shape != expected[key].shape
    }
    wrong = {"missing": expected.keys() - both, "unexpected": found.keys() - both, "of another shape": differ}
    refuse(path, f"timm's {name}", wrong)
    model.load_state_dict(found)
