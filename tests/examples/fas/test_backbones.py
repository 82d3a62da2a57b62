"""One frozen ViT for all modalities, from transformers (timm: tests/foreign), and the names that it is asked for by."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fas.backbones import SMALL, SharedSequence, SharedStreams, SmallSequence, SmallStreams, backbone
from fas.data import FaceData
from fas.pretrain import Decoder, draw_hidden, encode, make_decoders, patches, pretrain, reconstruction_loss
from fas.samples import Samples
from fas.standin import make_split
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.utils import logging

from balancekit.adapters import AMA, ConvAdapter, CrossModal, GatedCrossAttention, hub, train_only

CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}
NAMES = tuple(CHANNELS)
TINY = {
    "image_size": (48, 32),  # neither square nor the stand-in's
    "patch_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier as the hub holds it: config.json, and model.safetensors with a head and old names."""
    path = tmp_path_factory.mktemp("vit")
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**TINY)).save_pretrained(path)
    if bar:
        logging.enable_progress_bar()
    return path


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a config alone, and a file elsewhere under the module's own names."""
    config = ViTConfig(**TINY)
    config.save_pretrained(tmp_path / "config")
    file = tmp_path / "vit.safetensors"
    save_file(ViTModel(config, add_pooling_layer=False).state_dict(), file)
    return tmp_path / "config", file


@pytest.fixture
def streams(folder: Path) -> SharedStreams:
    return backbone(f"transformers:{folder}").streams(CHANNELS)


@pytest.fixture
def sequence(folder: Path) -> SharedSequence:
    return backbone(f"transformers:{folder}").sequence(CHANNELS)


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.rand(2, c, 64, 64, generator=generator) * 2 - 1 for m, c in CHANNELS.items()}


def pixels(image: Tensor) -> Tensor:
    return F.interpolate(image, (48, 32), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)


def joined(features: Tensor | dict[str, Tensor]) -> Tensor:
    return torch.cat([*features.values()]) if isinstance(features, dict) else features


# the two arrangements


def test_streams_are_the_vit_of_each_modality(folder: Path, streams: SharedStreams, inputs: dict[str, Tensor]) -> None:
    streams.eval()
    truth = ViTForImageClassification.from_pretrained(folder).vit.eval()
    expected = {m: truth(pixels(inputs[m])).last_hidden_state[:, 0] for m in NAMES}
    assert expected["rgb"].shape == (2, 16)
    torch.testing.assert_close(streams(inputs), expected)


def test_a_sequence_has_one_class_token_before_all_patches(
    folder: Path, sequence: SharedSequence, inputs: dict[str, Tensor]
) -> None:
    vit = ViTForImageClassification.from_pretrained(folder).vit.eval()
    tokens = [vit.embeddings(pixels(inputs[m])) for m in NAMES]
    x = torch.cat([tokens[0][:, :1], *(t[:, 1:] for t in tokens)], 1)
    assert x.shape == (2, 1 + 3 * 6, 16)
    for layer in vit.layers:
        x = layer(x)
    sequence.eval()
    out = sequence(inputs)
    assert out.shape == (2, 16)
    torch.testing.assert_close(out, vit.layernorm(x)[:, 0])


@pytest.mark.parametrize("make", ["streams", "sequence"])
def test_what_a_trunk_says_of_itself(request: pytest.FixtureRequest, make: str) -> None:
    trunk = request.getfixturevalue(make)
    assert (trunk.modalities, trunk.width, trunk.grid, trunk.depth) == (NAMES, 16, (3, 2), 3)


def test_nothing_belongs_to_one_modality(streams: SharedStreams) -> None:
    assert [streams.own(m) for m in NAMES] == [[], [], []]


def test_three_channels_stay_what_they_are(folder: Path, inputs: dict[str, Tensor]) -> None:
    trunk = backbone(f"transformers:{folder}").streams({"depth": 1, "infrared": 3}).eval()
    grey = {"depth": inputs["depth"], "infrared": inputs["depth"].repeat(1, 3, 1, 1)}
    one, three = trunk(grey).values()
    torch.testing.assert_close(one, three)
    with pytest.raises(ValueError, match=r"channels: expected 1 or 3 of depth, .* found 2"):
        backbone(f"transformers:{folder}").streams({"rgb": 3, "depth": 2})


# what trains


@pytest.mark.parametrize("make", ["streams", "sequence"])
def test_the_last_block_and_the_norm_train(
    request: pytest.FixtureRequest, make: str, inputs: dict[str, Tensor]
) -> None:
    trunk = request.getfixturevalue(make)
    joined(trunk(inputs)).square().sum().backward()
    expected = {*trunk.blocks[2].parameters(), *trunk.norm.parameters()}
    assert {p for p in trunk.parameters() if p.requires_grad} == expected
    assert {p for p in trunk.parameters() if p.grad is not None and p.grad.any()} >= {*trunk.norm.parameters()}
    assert {p for p in trunk.parameters() if p.grad is not None} == expected


def test_the_frozen_part_stays_in_evaluation_mode_and_adapters_do_not(streams: SharedStreams) -> None:
    sides = [nn.Sequential(nn.Dropout(), nn.Linear(16, 16)) for _ in range(6)]
    for block in range(3):
        streams.beside_mlp(block, sides[block])
        streams.beside_attention(block, sides[3 + block])
    assert all(side[0].training for side in sides)  # at once, though the block beside is not
    trunk = deepcopy(nn.ModuleList([streams]))[0]  # of another model's, with its own frozen modules
    for mode in (True, False, True):
        nn.ModuleList([trunk]).train(mode)
        frozen = [trunk.embed, *trunk.blocks[:-1]]
        inside = {m for part in frozen for m in part.modules() if not hasattr(m, "side")}
        beside = {m for block in trunk.blocks for part in (block.mlp, block.attention) for m in part.side.modules()}
        assert not any(m.training for m in inside - beside)
        assert all(m.training == mode for m in beside)
        assert all(m.training == mode for m in trunk.blocks[-1].modules())
        assert trunk.norm.training == mode
    assert any(isinstance(m, nn.Dropout) for m in inside - beside)


def test_every_call_makes_a_vit_of_its_own(folder: Path) -> None:
    made = backbone(f"transformers:{folder}")
    one, other = made.streams(CHANNELS), made.streams(CHANNELS)
    assert not {*one.parameters()} & {*other.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# adapters and taps


def test_adapters_of_all_blocks_change_nothing_at_first(streams: SharedStreams, inputs: dict[str, Tensor]) -> None:
    streams.eval()
    before = joined(streams(inputs))
    crosses = []
    for block in range(streams.depth):
        crosses.append(
            CrossModal(
                NAMES,
                hub("rgb", NAMES),
                lambda: GatedCrossAttention(16, width=4, heads=2, grid=streams.grid),
                confidence=streams.taps(block, lambda x: torch.exp(-x.abs().mean(-1))),
            )
        )
        streams.beside_mlp(block, crosses[-1])
        streams.beside_attention(block, ConvAdapter(16, width=4, grid=streams.grid))
    assert torch.equal(joined(streams(inputs)), before)
    train_only(streams, *crosses)
    joined(streams(inputs)).square().sum().backward()
    assert all(a.up.weight.grad.any() for cross in crosses[:-1] for a in cross.adapters.values())
    nn.init.normal_(next(iter(crosses[0].adapters.values())).up.weight)
    assert (joined(streams(inputs)) - before).abs().max() > 0.01


def test_ama_in_every_block_of_a_sequence(sequence: SharedSequence, inputs: dict[str, Tensor]) -> None:
    sequence.eval()
    before = sequence(inputs)
    amas = [AMA(NAMES, 16, width=4, grid=sequence.grid) for _ in range(6)]
    for block in range(3):
        sequence.beside_attention(block, amas[block])
        sequence.beside_mlp(block, amas[3 + block])
    assert torch.equal(sequence(inputs), before)
    nn.init.normal_(amas[0].up.weight)
    assert (sequence(inputs) - before).abs().max() > 0.01


def test_a_tap_hears_what_the_attention_adds(streams: SharedStreams, inputs: dict[str, Tensor]) -> None:
    streams.eval()
    taps = [streams.taps(block, torch.Tensor.clone) for block in range(3)]
    streams(inputs)
    assert [tap[m].value.shape for tap in taps for m in NAMES] == [(2, 7, 16)] * 9
    block = streams.blocks[0]
    heard = torch.cat([tap.value for tap in taps[0].values()])
    torch.testing.assert_close(heard, block.attention(block.layernorm_before(streams.all_tokens(inputs)))[0])


# names and files


def test_small() -> None:
    assert backbone("small") is SMALL
    with pytest.raises(ValueError, match="weights: expected none"):
        backbone("small", "vit.safetensors")


def test_weights_of_a_file_or_random_and_it_is_said(
    bare: tuple[Path, Path], folder: Path, capsys: pytest.CaptureFixture
) -> None:
    config, file = bare
    state = torch.get_rng_state()
    random = backbone(f"transformers:{config}")
    assert torch.equal(torch.get_rng_state(), state)
    assert "RANDOM" in capsys.readouterr().err
    torch.manual_seed(1)
    one, other = random.streams(CHANNELS), random.streams(CHANNELS)
    torch.manual_seed(1)
    again = random.streams(CHANNELS)
    assert torch.equal(one.blocks[0].mlp.fc1.weight, again.blocks[0].mlp.fc1.weight)
    assert not torch.equal(one.blocks[0].mlp.fc1.weight, other.blocks[0].mlp.fc1.weight)

    filled = backbone(f"transformers:{config}", str(file)).streams(CHANNELS)
    assert str(file) in (said := capsys.readouterr().err)
    assert "RANDOM" not in said
    state = load_file(file)
    found = {key.replace("embed.", "embeddings.", 1) if key.startswith("embed.") else key: value
             for key, value in filled.state_dict().items()}  # fmt: skip
    found = {key.replace("blocks.", "layers.").replace("norm.", "layernorm.") if key.startswith(("blocks.", "norm."))
             else key: value for key, value in found.items()}  # fmt: skip
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())

    backbone(f"transformers:{folder}")
    assert str(folder / "model.safetensors") in capsys.readouterr().err


WRONG = {
    "incomplete": (lambda state: state.pop("layers.1.mlp.fc1.bias"), ("missing", "layers.1.mlp.fc1.bias")),
    "more than a ViT": (lambda state: state.update(spare=torch.ones(1)), ("unexpected", "spare")),
    "another width": (
        lambda state: state.update({"layernorm.weight": torch.ones(3)}),
        ("mismatched", "layernorm.weight", "3", "16"),
    ),
}


@pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_fit_is_refused_by_its_keys(bare: tuple[Path, Path], spoil, words: tuple) -> None:
    config, file = bare
    state = load_file(file)
    spoil(state)
    save_file(state, file)
    with pytest.raises(ValueError, match="weights: expected") as refused:
        backbone(f"transformers:{config}", file)
    assert all(word in str(refused.value) for word in (str(file), *words))


def test_what_transformers_is_told_to_report_stays(folder: Path) -> None:
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.enable_progress_bar()
    backbone(f"transformers:{folder}")
    after = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(before)
    if not bar:
        logging.disable_progress_bar()
    assert after == (logging.CRITICAL, True)


def test_what_is_no_file_of_weights_is_refused(bare: tuple[Path, Path], tmp_path: Path) -> None:
    name = f"transformers:{bare[0]}"
    with pytest.raises(ValueError, match=r"weights: expected a file \.safetensors, found .*gone.*: no such file"):
        backbone(name, tmp_path / "gone.safetensors")
    (tmp_path / "a.pth").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"weights: .*\.safetensors, found .*a\.pth: another kind"):
        backbone(name, tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"weights: expected a safetensors file that opens, found .*a\.safetensors"):
        backbone(name, tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["large", "", "timm:", "torchvision:vit_b_16", "vit_tiny_patch16_224"])
def test_a_name_of_no_library_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r'name: expected "small", "timm:MODEL".*or "transformers:FOLDER", found'):
        backbone(name)


def test_a_folder_without_a_vit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name: expected a folder with a config\.json"):
        backbone(f"transformers:{tmp_path}")
    with pytest.raises(ValueError, match=r"the cache of transformers \(nothing is downloaded\), found nobody/nothing"):
        backbone("transformers:nobody/nothing")
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(ValueError, match="name: expected a config of model_type \"vit\", found 'dinov2'"):
        backbone(f"transformers:{tmp_path}")


def test_an_absent_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="timm to be installed for timm:vit_tiny_patch16_224: pip install timm"):
        backbone("timm:vit_tiny_patch16_224")


# pre-training: one modality, mostly hidden, has to tell what all of them show


@pytest.fixture(scope="module")
def samples() -> Samples:
    return make_split("S", "train", 60, seed=1)


def small(make: type = SmallStreams) -> SmallStreams | SmallSequence:
    torch.manual_seed(0)
    return make(CHANNELS)


def hidden_of(trunk: nn.Module, samples: int) -> Tensor:
    return draw_hidden(samples, trunk.grid[0] * trunk.grid[1], 0.75, torch.Generator().manual_seed(2))


@pytest.fixture(params=["SmallStreams", "SmallSequence", "SharedStreams", "SharedSequence"])
def any_trunk(request: pytest.FixtureRequest) -> nn.Module:
    if request.param.startswith("Small"):
        return small(globals()[request.param])
    return request.getfixturevalue("streams" if request.param == "SharedStreams" else "sequence")


def test_the_same_share_of_each_sample_is_hidden() -> None:
    hidden = draw_hidden(400, 64, 0.75, torch.Generator().manual_seed(0))
    assert hidden.sum(1).tolist() == [48] * 400
    assert (hidden.float().mean(0) - 0.75).abs().max() < 0.1  # no place is preferred: 4.6 standard deviations


@pytest.mark.parametrize("modality", NAMES)
def test_the_encoder_sees_nothing_of_a_hidden_patch(
    any_trunk: nn.Module, modality: str, inputs: dict[str, Tensor]
) -> None:
    any_trunk.eval()
    h, w = any_trunk.grid
    height, width = getattr(any_trunk, "size", (64, 64))
    image = F.interpolate(inputs[modality], (height, width))
    hidden = hidden_of(any_trunk, 2)
    shown = torch.where(hidden.view(2, 1, h, w), 0.0, 1.0)
    shown = F.interpolate(shown, (height, width), mode="nearest").bool()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(4))
    seen = encode(any_trunk, modality, image, hidden)
    assert seen.shape == (2, 1 + int((~hidden[0]).sum()), any_trunk.width)
    assert torch.equal(encode(any_trunk, modality, torch.where(shown, image, noise), hidden), seen)
    assert (encode(any_trunk, modality, torch.where(shown, noise, image), hidden) - seen).abs().max() > 0.01


def test_with_nothing_hidden_the_encoder_is_the_trunk(any_trunk: nn.Module, inputs: dict[str, Tensor]) -> None:
    any_trunk.eval()
    none = torch.zeros(2, any_trunk.grid[0] * any_trunk.grid[1], dtype=torch.bool)

    def feature(m: str) -> Tensor:
        tokens = encode(any_trunk, m, inputs[m], none)
        return tokens[:, 0] if isinstance(any_trunk, SharedStreams | SharedSequence) else tokens.mean(1)

    if hasattr(any_trunk, "own"):  # streams
        torch.testing.assert_close({m: feature(m) for m in NAMES}, any_trunk(inputs))
    else:
        any_trunk.modalities = ("rgb",)
        torch.testing.assert_close(feature("rgb"), any_trunk(inputs))


def test_a_decoder_puts_what_is_visible_in_its_place() -> None:
    decoder = Decoder(8, 5, 8)
    decoder.block, decoder.out = nn.Identity(), nn.Identity()
    nn.init.normal_(decoder.hidden)
    hidden = torch.tensor([[True, False, True, True, False], [False, True, False, True, True]])
    encoded = torch.randn(2, 1 + 2, 8)
    out = decoder(encoded, hidden) - decoder.position
    torch.testing.assert_close(out[0, [1, 4]], encoded[0, 1:])
    torch.testing.assert_close(out[1, [0, 2]], encoded[1, 1:])
    torch.testing.assert_close(out[hidden], decoder.hidden[0].expand(6, -1))


def test_the_loss_is_over_hidden_patches_of_the_one_and_all_patches_of_the_others(inputs: dict[str, Tensor]) -> None:
    trunk = small()
    hidden = hidden_of(trunk, 2)
    decoders = make_decoders(trunk, {"rgb": 192, "depth": 64, "infrared": 64}, 0)
    for decoder in decoders.values():
        nn.init.zeros_(decoder.out.weight)
        nn.init.zeros_(decoder.out.bias)
    blocks = inputs["depth"].unfold(2, 8, 8).unfold(3, 8, 8).reshape(2, 64, 64)  # row by row of patches
    assert torch.equal(patches(trunk, inputs["depth"]), blocks)
    expected = inputs["rgb"].square().mean() + inputs["infrared"].square().mean() + blocks[hidden].square().mean()
    torch.testing.assert_close(reconstruction_loss(trunk, decoders, "depth", inputs, hidden), expected)


@pytest.mark.parametrize("modality", NAMES)
def test_a_step_reaches_the_encoder_of_one_modality(modality: str, inputs: dict[str, Tensor]) -> None:
    trunk = small()
    decoders = make_decoders(trunk, {"rgb": 192, "depth": 64, "infrared": 64}, 0)
    reconstruction_loss(trunk, decoders, modality, inputs, hidden_of(trunk, 2)).backward()
    parts = trunk.own(modality)
    own = {p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())}
    assert {p for p in trunk.parameters() if p.grad is not None} == own
    assert all(p.grad is not None for p in decoders.parameters())


def test_pretraining_lowers_the_loss_and_looks_at_the_faces(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("fas.pretrain.make_decoders", lambda *given: made.append(make_decoders(*given)) or made[0])
    trunk = small()
    losses = torch.tensor(pretrain(trunk, samples, steps=50, batch=16, lr=3e-3))
    assert losses.shape == (50,)
    assert losses[22:30].mean() < 0.6 * losses[:8].mean()
    assert losses[-8:].mean() < 0.4 * losses[:8].mean()

    # much of that is the mean face; from the patches of somebody else it would be only that
    inputs, hidden = FaceData(samples)[range(60)].inputs, hidden_of(trunk, 60)
    for decoder in made[0].values():
        decoder.eval()

    def loss(m: str, seen: dict[str, Tensor]) -> Tensor:
        return reconstruction_loss(trunk, made[0], m, seen, hidden)

    with torch.no_grad():
        own = sum(loss(m, inputs) for m in NAMES)
        monkeypatch.setattr(
            "fas.pretrain.encode", lambda trunk, m, image, hidden: encode(trunk, m, image.roll(1, 0), hidden)
        )
        other = sum(loss(m, inputs) for m in NAMES)
    assert other > 1.03 * own


def test_pretraining_is_a_function_of_its_seed(samples: Samples) -> None:
    def run(seed: int, state: int) -> tuple[list[float], dict[str, Tensor]]:
        trunk = small()
        torch.manual_seed(state)
        before = torch.get_rng_state()
        losses = pretrain(trunk.eval(), samples, steps=3, batch=4, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert not trunk.training
        return losses, trunk.state_dict()

    (one, weights), (again, same), (other, _) = run(0, 1), run(0, 2), run(1, 1)
    assert one == again != other
    assert all(torch.equal(same[key], value) for key, value in weights.items())


def test_of_a_shared_vit_the_last_block_and_the_norm_learn(streams: SharedStreams, samples: Samples) -> None:
    before = {key: value.clone() for key, value in streams.state_dict().items()}
    pretrain(streams, samples, steps=2, batch=4)
    changed = {key for key, value in streams.state_dict().items() if not torch.equal(before[key], value)}
    assert {key.split(".")[0] + key.split(".")[1] for key in changed if key.startswith("blocks")} == {"blocks2"}
    assert changed - {key for key in changed if key.startswith("blocks.2.")} == {"norm.weight", "norm.bias"}


def test_batch_norms_end_with_the_statistics_of_whole_faces(samples: Samples) -> None:
    trunk = small()
    pretrain(trunk, samples, steps=4, batch=16, ratio=0.9)
    norm = trunk.encoders["rgb"].stem.body[1]
    with torch.no_grad():
        maps = trunk.encoders["rgb"].stem.body[0](FaceData(samples)[range(60)].inputs["rgb"])
    off = (norm.running_mean - maps.mean((0, 2, 3))).abs() / maps.std((0, 2, 3))
    assert off.max() < 0.1


@pytest.mark.parametrize("ratio", [0, 0.001, 1, 0.999, -1, 2])
def test_a_ratio_that_hides_nothing_or_all_is_refused(ratio: float, samples: Samples) -> None:
    with pytest.raises(ValueError, match="ratio: expected a share that hides some of the 64 patches and not all"):
        pretrain(small(), samples, ratio=ratio)
