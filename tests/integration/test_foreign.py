"""Models that were not written here: MultiBranch around them, and one ReGrad step that visits every branch tensor."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import MultiBranch, Rebalancer, ReGrad
from tests.oracles import regrad as oracle

LABELS = torch.tensor([0, 1, 2, 0])


class Residual(nn.Module):
    """A basic residual block, as in ResNet."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.down = nn.Conv2d(inside, outside, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.down(x))


class LateFusion(nn.Module):
    """Two ResNet-like encoders, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.Sequential(Residual(1, 8), Residual(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.video = nn.Sequential(Residual(3, 8), Residual(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(32, 3)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        return self.fc(torch.cat([self.audio(audio), self.video(video)], 1))


class Transformers(nn.Module):
    """Two nn.TransformerEncoder branches whose tokens meet in a third."""

    def __init__(self) -> None:
        super().__init__()

        def encoder() -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        self.text, self.image, self.fusion = encoder(), encoder(), encoder()
        self.fc = nn.Linear(16, 3)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        return self.fc(self.fusion(torch.cat([self.text(text), self.image(image)], 1)).mean(1))


def one_step(model: MultiBranch, inputs: dict, logits: object, heads: nn.ModuleDict) -> None:
    """Surgery equals the oracle on every parameter, and every trainable tensor of every branch is visited.

    The heads lie outside the branches, so they get separate passes, but these end at the heads.
    """
    keys = list(model.model.state_dict())
    output, features = model(**inputs)
    assert list(model.state_dict()) == keys
    total = F.cross_entropy(logits(output), LABELS)
    losses = {name: F.cross_entropy(heads[name](feature), LABELS) for name, feature in features.items()}
    assert set(losses) == set(model.branches)
    branches = {name: list(parameters) for name, parameters in model.branches.items()}
    rest = [
        *(p for p in heads.parameters() if p.requires_grad),
        *(p for p in model.parameters() if p not in model.branches.owners()),
    ]
    expected = oracle.step(
        total,
        losses,
        branches,
        rest,
        confidence=dict.fromkeys(losses, 0.5),
        speed={name: -loss.item() for name, loss in losses.items()},
        weight=1.0,
        per="tensor",
        rest="sum",
    )
    balancer = Rebalancer(model.branches, ReGrad())
    seen = []
    balancer.register_step_hook(seen.append)
    balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
    for parameter, gradient in expected.items():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)
    visited = sum(p.grad is not None for parameters in branches.values() for p in parameters)
    assert visited == sum(map(len, branches.values()))
    assert seen[0].path == "collapse"


def test_resnet_like_late_fusion() -> None:
    torch.manual_seed(0)
    model = MultiBranch(LateFusion(), {"audio": "audio", "video": "video"})
    heads = nn.ModuleDict({name: nn.Linear(16, 3) for name in model.branches})
    inputs = {"audio": torch.randn(4, 1, 16, 16), "video": torch.randn(4, 3, 16, 16)}
    one_step(model, inputs, lambda output: output, heads)
    model.zero_grad()
    heads.requires_grad_(False)
    one_step(model, inputs, lambda output: output, heads)


def test_transformer_encoders() -> None:
    torch.manual_seed(0)
    model = MultiBranch(Transformers(), {"text": "text", "image": "image"}, pool=lambda tokens: tokens.mean(1))
    heads = nn.ModuleDict({name: nn.Linear(16, 3) for name in model.branches})
    inputs = {"text": torch.randn(4, 5, 16), "image": torch.randn(4, 7, 16)}
    one_step(model, inputs, lambda output: output, heads)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_transformers_two_towers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 50, "max_position_embeddings": 8, "eos_token_id": 49, "bos_token_id": 48},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    clip = transformers.CLIPModel(config)
    groups = {
        "text": ["text_model", "text_projection"],
        "image": ["vision_model", "visual_projection"],
    }
    model = MultiBranch(clip, groups, pool=lambda output: output.pooler_output)
    heads = nn.ModuleDict({name: nn.Linear(16, 3) for name in model.branches})
    inputs = {"input_ids": torch.randint(0, 50, (4, 8)), "pixel_values": torch.randn(4, 3, 16, 16)}
    one_step(model, inputs, lambda output: output.logits_per_image, heads)
