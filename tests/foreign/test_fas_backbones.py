"""The face anti-spoofing example's shared backbone, made of a ViT of timm as it comes."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from fas.backbones import backbone
from safetensors.torch import save_file
from torch import Tensor, nn

from balancekit.adapters import AMA, CrossModal, GatedCrossAttention, hub

CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}
NAMES = tuple(CHANNELS)
NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def truth() -> nn.Module:
    """With the head of its own task."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=5).eval()
    nn.init.normal_(model.cls_token)
    return model


@pytest.fixture(scope="module", params=[".safetensors", ".pth"])
def file(request: pytest.FixtureRequest, truth: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / f"vit{request.param}"
    (save_file if path.suffix == ".safetensors" else torch.save)(truth.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.rand(1, c, 64, 64, generator=generator) * 2 - 1 for m, c in CHANNELS.items()}


def pixels(image: Tensor) -> Tensor:
    return F.interpolate(image, (224, 224), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)


def test_streams_with_the_weights_of_a_file(file: Path, truth: nn.Module, inputs: dict[str, Tensor]) -> None:
    trunk = backbone(f"timm:{NAME}", file).streams(CHANNELS)
    assert (trunk.modalities, trunk.width, trunk.grid, trunk.depth) == (NAMES, 192, (14, 14), 12)
    assert {p for p in trunk.parameters() if p.requires_grad} == {
        *trunk.blocks[11].parameters(),
        *trunk.norm.parameters(),
    }
    trunk.eval()
    taps = trunk.taps(0, torch.Tensor.clone)
    with torch.no_grad():
        before = torch.cat([*trunk(inputs).values()])
        torch.testing.assert_close(before, truth.forward_features(torch.cat([pixels(inputs[m]) for m in NAMES]))[:, 0])
        assert [tap.value.shape for tap in taps.values()] == [(1, 1 + 14 * 14, 192)] * 3
        crosses = []
        for block in range(trunk.depth):
            confidence = trunk.taps(block, lambda x: torch.exp(-x.abs().mean(-1)))
            make = lambda: GatedCrossAttention(192, grid=trunk.grid)  # noqa: E731
            crosses.append(CrossModal(NAMES, hub("rgb", NAMES), make, confidence=confidence))
            trunk.beside_mlp(block, crosses[-1])
        assert torch.equal(torch.cat([*trunk(inputs).values()]), before)
        nn.init.normal_(next(iter(crosses[0].adapters.values())).up.weight)
        assert (torch.cat([*trunk(inputs).values()]) - before).abs().max() > 0.01


def test_a_sequence_with_ama(file: Path, inputs: dict[str, Tensor]) -> None:
    trunk = backbone(f"timm:{NAME}", file).sequence(CHANNELS).eval()
    with torch.no_grad():
        before = trunk(inputs)
        assert before.shape == (1, 192)
        ama = AMA(NAMES, 192, grid=trunk.grid)
        trunk.beside_attention(0, ama)
        assert torch.equal(trunk(inputs), before)
        nn.init.normal_(ama.up.weight)
        assert (trunk(inputs) - before).abs().max() > 0.01


def test_a_file_that_does_not_fit_is_refused_by_its_keys(truth: nn.Module, tmp_path: Path) -> None:
    state = truth.state_dict()
    state["spare"] = state.pop("blocks.3.mlp.fc1.bias")
    state["norm.weight"] = torch.ones(3)
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"weights: expected .*to hold timm's vit_tiny") as refused:
        backbone(f"timm:{NAME}", tmp_path / "vit.safetensors")
    text = str(refused.value)
    assert "1 missing, such as ['blocks.3.mlp.fc1.bias']" in text
    assert "1 unexpected, such as ['spare']" in text
    assert "norm.weight (3,), not (192,)" in text


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_broken_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vit{suffix}"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"weights: expected a checkpoint that opens, found .*vit"):
        backbone(f"timm:{NAME}", path)


def test_without_a_file_it_is_random_and_says_so(capsys: pytest.CaptureFixture) -> None:
    backbone(f"timm:{NAME}")
    assert "RANDOM" in capsys.readouterr().err


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name: expected a model of timm.* found 'vit_of_nobody'"):
        backbone("timm:vit_of_nobody")
    with pytest.raises(ValueError, match="one class token, found resnet18: ResNet"):
        backbone("timm:resnet18")
    with pytest.raises(ValueError, match="found vit_little_patch16_reg4_gap_256: VisionTransformer with 4 such tokens"):
        backbone("timm:vit_little_patch16_reg4_gap_256")
