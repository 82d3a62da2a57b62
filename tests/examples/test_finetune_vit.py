"""The fine-tuning example, through its command line: what trains, what is saved, and which weights stay."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.utils import logging

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """The script as a module, with a tiny ViT; the generated faces are shared by all tests of this file."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    module = importlib.import_module("finetune_vit")
    monkeypatch.setattr(module, "SMALL", TINY)
    return module


@pytest.fixture
def run(example, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    """Run the script; returns what it printed, what it saved, and each ViT with its state before it was touched."""
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()  # while the tests themselves save
    make = example.backbone

    def main(*arguments: str) -> tuple[str, dict, list]:
        made = []

        def recorded(*given):
            vit = make(*given)
            made.append((vit, {key: value.clone() for key, value in vit.state_dict().items()}))
            return vit

        monkeypatch.setattr(example, "backbone", recorded)
        options = ["--samples", "16", "--epochs", "1", "--out", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr("sys.argv", ["finetune_vit.py", *options])
        example.main()
        return capsys.readouterr().out, load_file(tmp_path / "out" / "adapters.safetensors"), made

    yield main
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


def is_frozen(key: str) -> bool:
    return ".mlp.side." not in key


def test_only_adapters_and_head_train_and_only_they_are_saved(run) -> None:
    text, saved, made = run()
    assert "RANDOM" in text
    assert "epoch 1 of 1: cross-entropy" in text
    assert "on W: AUC" in text
    assert "bit for bit: True" in text
    assert len(made) == 2  # the second is the fresh one

    rows = [line.split() for line in text.splitlines() if line.startswith(("vit.", "head", "total"))]
    expected = {"vit.layers.0.mlp.side": 0, "vit.layers.1.mlp.side": 0, "head": 0}
    for key, value in saved.items():
        (part,) = [part for part in expected if key.startswith(f"{part}.")]
        expected[part] += value.numel()
    assert {name: int(count.replace(",", "")) for name, _, count, *_ in rows[:-1]} == expected
    assert rows[-1][0] == "total"
    assert int(rows[-1][2].replace(",", "")) == sum(expected.values())
    assert sum(key.endswith("up.weight") for key in saved) == 2 * 4  # each block: RGB from two, two from RGB
    assert any(value.any() for key, value in saved.items() if key.endswith("up.weight"))  # they start at zero

    vit, before = made[0]
    after = {key: value for key, value in vit.state_dict().items() if is_frozen(key)}
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value), key


@pytest.mark.parametrize("gate", ["query", "key", "output", "key+output"])
def test_each_gate_runs(run, gate: str) -> None:
    assert "bit for bit: True" in run("--gate", gate)[0]


def test_the_comparison_with_a_fresh_backbone_can_fail(example, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "load_adapter_state", lambda *given: None)
    assert "bit for bit: False" in run()[0]


def bare(config: ViTConfig, folder: Path) -> tuple[Path, ViTModel]:
    """As torch would save it, with the module's own names."""
    vit = ViTModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    save_file(vit.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors", vit


def of_a_classifier(config: ViTConfig, folder: Path) -> tuple[Path, ViTModel]:
    """As the hub holds them: a head, names behind "vit.", and names of an older release."""
    model = ViTForImageClassification(config)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    assert {"classifier.weight", "vit.encoder.layer.0.attention.attention.query.weight"} <= load_file(path).keys()
    return path, model.vit


@pytest.mark.parametrize("save", [bare, of_a_classifier])
def test_the_weights_of_a_file_are_used_and_stay(run, tmp_path: Path, save: Callable) -> None:
    config = ViTConfig(**TINY | {"image_size": (48, 32), "hidden_size": 24})  # neither the stand-in's size nor square
    path, truth = save(config, tmp_path)
    text, _, made = run("--weights", str(path))
    assert "RANDOM" not in text
    assert "bit for bit: True" in text
    for vit, _ in made:
        found = {key: value for key, value in vit.state_dict().items() if is_frozen(key)}
        assert found.keys() == truth.state_dict().keys()
        for key, value in truth.state_dict().items():
            assert torch.equal(found[key], value), key


WRONG = {
    "incomplete": (lambda state: state.pop("layers.1.mlp.fc1.bias"), ("missing", "layers.1.mlp.fc1.bias")),
    "more than a ViT": (lambda state: state.update(spare=torch.ones(1)), ("unexpected", "spare")),
    "another width": (
        lambda state: state.update({"layernorm.weight": torch.ones(3)}),
        ("mismatched", "layernorm.weight", "3", "16"),
    ),
}


@pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_fit_is_refused_by_its_keys(run, tmp_path: Path, spoil: Callable, words: tuple) -> None:
    path, _ = bare(ViTConfig(**TINY), tmp_path)
    state = load_file(path)
    spoil(state)
    save_file(state, path)
    with pytest.raises(SystemExit) as refused:
        run("--weights", str(path))
    for word in ("--weights", str(path), *words):
        assert word in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"no such thing"])
def test_what_is_no_safetensors_file_is_refused_by_its_name(run, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"--weights: expected a safetensors file, found .*weights\.safetensors"):
        run("--weights", str(path))
