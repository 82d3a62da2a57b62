"""Backbones that others wrote, with random weights, and the lines that a user writes to put adapters into them.

Each `insert` names the modules of its backbone one by one. In every block the adapters stand beside the MLP and read
what it reads, the output of the second norm; their gate reads the attention before it (MMDG, arXiv 2402.19298, Fig. 3).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from einops import reduce
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from balancekit.adapters import CrossModal, GatedCrossAttention, Parallel, Tap, hub

NAMES = ("rgb", "depth", "ir")
Beside = Callable[[nn.Module], CrossModal]


class Backbone(NamedTuple):
    """A model, where its adapters go, and how it is read.

    `insert(model, beside)` writes into the model; `beside(attention)` makes the adapters of one block, gated by what
    the attention puts out. `read` turns the model's output into features "(m b) out".
    """

    build: Callable[[], nn.Module]
    insert: Callable[[Any, Beside], None]
    read: Callable[[Any], Tensor]
    input: tuple[int, ...]
    out: int
    dim: int
    grid: int | tuple[int, int]
    prefix: int = 1


def confidence(attention: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A confidence in (0, 1] a token, from an attention of torch, of timm, or of transformers."""
    tokens = attention[0] if isinstance(attention, tuple) else attention
    return torch.exp(-tokens.abs().mean(-1))


def wire(backbone: Backbone, model: nn.Module, seed: int = 1) -> list[CrossModal]:
    """Put adapters into every block of the model; return them, block by block."""
    torch.manual_seed(seed)
    adapter = partial(GatedCrossAttention, backbone.dim, conv="cdc", grid=backbone.grid, prefix=backbone.prefix)
    crosses: list[CrossModal] = []

    def beside(attention: nn.Module) -> CrossModal:
        crosses.append(CrossModal(NAMES, hub("rgb", NAMES), adapter, confidence=Tap(attention, confidence)))
        return crosses[-1]

    backbone.insert(model, beside)
    return crosses


class Recogniser(nn.Module):
    """A backbone of all modalities, and a head on the mean of what it makes of them."""

    def __init__(self, backbone: Backbone, model: nn.Module) -> None:
        super().__init__()
        self.model, self.read, self.head = model, backbone.read, nn.Linear(backbone.out, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(reduce(self.read(self.model(x)), "(m b) d -> b d", "mean", m=len(NAMES)))


# torchvision


def into_torchvision(model: torchvision.models.VisionTransformer, beside: Beside) -> None:
    for block in model.encoder.layers:
        block.mlp = Parallel(block.mlp, beside(block.self_attention))


def torchvision_vit(make: Callable[[], torchvision.models.VisionTransformer]) -> torchvision.models.VisionTransformer:
    model = make()
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision's starts at zero, and so does all that it puts out
    return model


# timm


def into_timm(model: Any, beside: Beside) -> None:
    for block in model.blocks:
        block.mlp = Parallel(block.mlp, beside(block.attn))


def timm_model(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, pretrained=False, num_classes=0, **kwargs)


# transformers


def into_vit(model: ViTModel, beside: Beside) -> None:
    for layer in model.layers:
        layer.mlp = Parallel(layer.mlp, beside(layer.attention))


def into_clip(model: CLIPVisionModel, beside: Beside) -> None:
    for layer in model.encoder.layers:
        layer.mlp = Parallel(layer.mlp, beside(layer.self_attn))


def into_dinov2(model: Dinov2Model, beside: Beside) -> None:
    for layer in model.encoder.layer:
        layer.mlp = Parallel(layer.mlp, beside(layer.attention))


def class_token(output: Any) -> Tensor:
    return output.last_hidden_state[:, 0]


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8}


# torch


def into_encoder(model: nn.TransformerEncoder, beside: Beside) -> None:
    for layer in model.layers:  # its MLP is no module of its own: two linear layers, and what is between them
        layer.linear2 = Parallel(layer.linear2, beside(layer.self_attn), input_of=layer.linear1)


def encoder(norm_first: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def token_mean(tokens: Tensor) -> Tensor:
    return tokens.mean(1)


def itself(features: Tensor) -> Tensor:
    return features


UNMODIFIED = {
    "torchvision vit_b_16": Backbone(
        partial(torchvision_vit, torchvision.models.vit_b_16),
        into_torchvision,
        itself,
        input=(3, 224, 224),
        out=1000,
        dim=768,
        grid=14,
    ),
    "timm vit_base_patch16_224": Backbone(
        timm_model("vit_base_patch16_224"), into_timm, itself, input=(3, 224, 224), out=768, dim=768, grid=14
    ),
}
"""As they come, twelve blocks deep."""

BACKBONES = {
    "torchvision ViT-B/16": Backbone(
        partial(
            torchvision_vit,
            partial(
                torchvision.models.VisionTransformer,
                image_size=64,
                patch_size=16,
                num_layers=2,
                num_heads=12,
                hidden_dim=768,
                mlp_dim=3072,
                num_classes=10,
            ),
        ),
        into_torchvision,
        itself,
        input=(3, 64, 64),
        out=10,
        dim=768,
        grid=4,
    ),
    "timm ViT-B/16": Backbone(
        timm_model("vit_base_patch16_224", img_size=(64, 96), depth=2),
        into_timm,
        itself,
        input=(3, 64, 96),
        out=768,
        dim=768,
        grid=(4, 6),
    ),
    "timm DeiT-III": Backbone(  # LayerScale starts at 1e-6, far from what training makes of it: nothing would be seen
        timm_model("deit3_small_patch16_224", img_size=64, depth=2, init_values=0.5),
        into_timm,
        itself,
        input=(3, 64, 64),
        out=384,
        dim=384,
        grid=4,
    ),
    "timm EVA-02": Backbone(  # SwiGLU, and positions by rotation
        timm_model("eva02_tiny_patch14_224", img_size=56, depth=2),
        into_timm,
        itself,
        input=(3, 56, 56),
        out=192,
        dim=192,
        grid=4,
    ),
    "timm ViT, four registers": Backbone(  # and no class token
        timm_model("vit_little_patch16_reg4_gap_256", img_size=64, depth=2, init_values=0.5),
        into_timm,
        itself,
        input=(3, 64, 64),
        out=320,
        dim=320,
        grid=4,
        prefix=4,
    ),
    "transformers ViT": Backbone(
        lambda: ViTModel(ViTConfig(**SMALL, image_size=(32, 48), intermediate_size=128, initializer_range=0.1)),
        into_vit,
        class_token,
        input=(3, 32, 48),
        out=64,
        dim=64,
        grid=(4, 6),
    ),
    "transformers CLIP": Backbone(
        lambda: CLIPVisionModel(CLIPVisionConfig(**SMALL, image_size=32, intermediate_size=128)),
        into_clip,
        class_token,
        input=(3, 32, 32),
        out=64,
        dim=64,
        grid=4,
    ),
    "transformers DINOv2": Backbone(  # LayerScale and SwiGLU
        lambda: Dinov2Model(
            Dinov2Config(**SMALL, image_size=32, mlp_ratio=2, use_swiglu_ffn=True, initializer_range=0.1)
        ),
        into_dinov2,
        class_token,
        input=(3, 32, 32),
        out=64,
        dim=64,
        grid=4,
    ),
    "torch encoder, norm first": Backbone(
        partial(encoder, True), into_encoder, token_mean, input=(16, 32), out=32, dim=32, grid=4, prefix=0
    ),
    "torch encoder, norm last": Backbone(
        partial(encoder, False), into_encoder, token_mean, input=(16, 32), out=32, dim=32, grid=4, prefix=0
    ),
}
"""Two blocks and few patches each, through their constructors' own arguments; ViT-B at its full width."""
