"""Adapters in backbones that others wrote: nothing of them is rewritten, and nothing of them is lost."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from balancekit.adapters import (
    ConvAdapter,
    CrossModal,
    GatedCrossAttention,
    Parallel,
    adapter_state,
    missing,
    remove,
    train_only,
)
from tests.foreign.backbones import BACKBONES, NAMES, UNMODIFIED, wire
from tests.foreign.fresh import batch, recogniser, slug

ROOT = Path(__file__).parents[2]
EDGES = 4

every = pytest.mark.parametrize("name", BACKBONES)


def built(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return BACKBONES[name].build().eval()


def output(name: str, model: nn.Module, x: Tensor) -> Tensor:
    """All that the model puts out: every token, where it does not pool them itself."""
    out: Any = model(x)
    return getattr(out, "last_hidden_state", out)


def stir(crosses: list[CrossModal]) -> None:
    """Let the adapters say something: their up-projections start at zero."""
    torch.manual_seed(2)
    for adapter in adapters(crosses):
        nn.init.normal_(adapter.up.weight, std=0.5)


def adapters(crosses: list[CrossModal]) -> list[GatedCrossAttention]:
    each = [adapter for cross in crosses for adapter in cross.adapters.values()]
    assert all(isinstance(adapter, GatedCrossAttention) for adapter in each)
    assert len(each) == EDGES * len(crosses) > 0
    return each


def difference(a: Tensor, b: Tensor) -> float:
    assert a.isfinite().all()
    return (a - b).abs().max().item()


def hooks(model: nn.Module) -> dict[str, list[Any]]:
    """Every hook of every module, whatever its kind."""
    return {
        f"{name}.{attribute}": list(value.values())
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if "hook" in attribute and isinstance(value, dict)
    }


@contextmanager
def one_kernel() -> Iterator[None]:
    """Without gradients torch's attention runs on another kernel, unless it is hooked: switch that kernel off."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# at first, the model is what it was


@every
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_output_is_unchanged_at_first(
    name: str, training: bool, gradients: type[AbstractContextManager[None]]
) -> None:
    model, x = built(name).train(training), batch(name)
    with one_kernel(), gradients():
        before = output(name, model, x)
        crosses = wire(BACKBONES[name], model)
        assert len(adapters(crosses)) == 2 * EDGES
        assert difference(output(name, model, x), before) == 0


@every
@pytest.mark.parametrize("gradients", [torch.no_grad, torch.inference_mode])
def test_no_fast_path_leaves_the_adapters_out(name: str, gradients: type[AbstractContextManager[None]]) -> None:
    model, x = built(name), batch(name)
    with gradients():
        bare = output(name, model, x)
    crosses = wire(BACKBONES[name], model)
    with gradients():
        torch.testing.assert_close(output(name, model, x), bare)
    stir(crosses)
    slow = output(name, model, x)
    with gradients():
        fast = output(name, model, x)
    torch.testing.assert_close(fast, slow)
    assert difference(fast, bare) > 0.01


# training


@every
def test_only_the_adapters_and_the_head_get_gradients(name: str) -> None:
    model, crosses = recogniser(name, seed=1)
    train_only(model, *crosses, model.head)
    F.cross_entropy(model.train()(batch(name)), torch.tensor([0, 1])).backward()
    trained = {parameter for part in (*crosses, model.head) for parameter in part.parameters()}
    assert {parameter for parameter in model.parameters() if parameter.grad is not None} == trained
    assert {parameter for parameter in model.parameters() if parameter.requires_grad} == trained
    heard = [adapter.up.weight.grad for adapter in adapters(crosses)]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in heard)


@every
def test_a_few_steps_of_the_adapters_alone_lower_the_loss(name: str) -> None:
    model, crosses = recogniser(name, seed=1)
    x, labels = batch(name), torch.tensor([0, 1])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_only(model, *crosses)
    first = step_down(model, x, labels)
    with torch.no_grad():
        last = F.cross_entropy(model.eval()(x), labels).item()
    assert last < 0.5 * first
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if ".side." not in key)
    assert all(adapter.up.weight.abs().sum() > 0 for adapter in adapters(crosses))


def step_down(model: nn.Module, x: Tensor, labels: Tensor, steps: int = 8) -> float:
    """A few steps of Adam on what trains; returns the loss before them."""
    torch.manual_seed(4)
    with torch.no_grad():
        first = F.cross_entropy(model.eval()(x), labels).item()
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return first


def test_gradient_checkpointing_runs_the_adapters_again() -> None:
    model, crosses = recogniser("transformers ViT", seed=1)
    stir(crosses)
    train_only(model, *crosses)
    x, labels = batch("transformers ViT"), torch.tensor([0, 1])

    def gradients() -> list[Tensor]:
        torch.manual_seed(4)  # dropout in the adapters is drawn anew
        loss = F.cross_entropy(model.train()(x), labels)
        return list(torch.autograd.grad(loss, [parameter for cross in crosses for parameter in cross.parameters()]))

    plain = gradients()
    model.model.activation_checkpointing_enable()
    runs: list[nn.Module] = []
    crosses[0].register_forward_pre_hook(lambda module, args: runs.append(module))
    torch.testing.assert_close(gradients(), plain)
    assert len(runs) == 2
    assert all(gradient.abs().sum() > 0 for gradient in plain)


# compiling


@every
def test_one_graph(name: str) -> None:
    model, x = built(name), batch(name)
    crosses = wire(BACKBONES[name], model)
    stir(crosses)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(output(name, compiled, x), output(name, model, x))


# saving and loading


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of each trained model, in this process; and in a fresh one, before and after it loads the adapters' state."""
    folder = tmp_path_factory.mktemp("adapters")
    here: dict[str, Tensor] = {}
    for name in BACKBONES:
        model, crosses = recogniser(name, seed=1)
        train_only(model, *crosses, model.head)
        step_down(model, batch(name), torch.tensor([0, 1]), steps=2)
        with torch.no_grad():
            here[name] = model.eval()(batch(name))
        save_file(adapter_state(model, *crosses, model.head), folder / f"{slug(name)}.safetensors")
    command = [sys.executable, "-W", "error", "-m", "tests.foreign.fresh", str(folder), str(torch.get_num_threads())]
    subprocess.run(command, cwd=ROOT, check=True)
    return here, load_file(folder / "loaded.safetensors")


@every
def test_a_fresh_process_gets_it_back_bit_for_bit(
    name: str, logits: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    here, there = logits
    assert torch.equal(there[f"{name}, after"], here[name])
    assert not torch.equal(there[f"{name}, before"], here[name])


@every
def test_a_checkpoint_of_the_untouched_model_loads(name: str) -> None:
    other, x = built(name, seed=5), batch(name)
    checkpoint = other.state_dict()
    model = built(name)
    untouched = model.state_dict()
    crosses = wire(BACKBONES[name], model)
    wired = model.state_dict()
    assert all(torch.equal(wired[key], value) for key, value in untouched.items())
    added = sum(len(cross.state_dict()) for cross in crosses)
    assert len(wired) == len(untouched) + added
    result = model.load_state_dict(checkpoint, strict=False)
    assert result.unexpected_keys == []
    assert set(result.missing_keys) == set(wired) - set(untouched)
    assert torch.equal(output(name, model, x), output(name, other, x))


# the way back


@every
def test_remove_gives_the_model_back(name: str) -> None:
    model, x = built(name), batch(name)
    modules, hooked, keys = dict(model.named_modules()), hooks(model), list(model.state_dict())
    with torch.no_grad():  # on the fast path as well, which a hook that was left behind would close
        before = output(name, model, x)
    stir(wire(BACKBONES[name], model))
    assert dict(model.named_modules()) != modules
    assert hooks(model) != hooked
    assert remove(model) is model
    assert dict(model.named_modules()) == modules  # modules are equal only to themselves
    assert hooks(model) == hooked
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(output(name, model, x), before)


# a modality that a sample lacks


@every
def test_who_lacks_a_modality_changes_nothing_for_the_others(name: str) -> None:
    model, crosses = recogniser(name, seed=1)
    stir(crosses)
    x = batch(name, samples=3)
    present = torch.ones(3, 3, dtype=torch.bool)
    present[NAMES.index("depth"), 1] = False
    gone = x.clone()
    gone.unflatten(0, (3, 3))[NAMES.index("depth"), 1] = float("nan")
    others = torch.tensor([0, 2])

    def features(images: Tensor) -> Tensor:
        return model.read(model.model.eval()(images)).unflatten(0, (len(NAMES), -1))

    with torch.no_grad():
        whole = features(x)
        alone = features(x.unflatten(0, (3, 3))[:, others].flatten(0, 1))
        with missing(model, present):
            without = features(gone)
    assert torch.equal(without[:, others], whole[:, others])
    torch.testing.assert_close(without[:, others], alone)
    seen = [NAMES.index("rgb"), NAMES.index("ir")]
    assert difference(without[seen, 1], whole[seen, 1]) > 0.001  # finite, and nothing of depth is in it


# as they come: twelve blocks of width 768, 224 × 224 pixels


@pytest.mark.parametrize("name", UNMODIFIED)
def test_full_size(name: str) -> None:
    backbone = UNMODIFIED[name]
    torch.manual_seed(0)
    model = backbone.build().eval()
    x = torch.randn(len(NAMES), *backbone.input)
    modules, hooked, keys = dict(model.named_modules()), hooks(model), list(model.state_dict())
    with one_kernel(), torch.no_grad():
        before = model(x)
        crosses = wire(backbone, model)
        assert len(adapters(crosses)) == 12 * EDGES
        assert difference(model(x), before) == 0
    train_only(model, *crosses)
    model.train()(x).square().mean().backward()
    trained = {parameter for cross in crosses for parameter in cross.parameters()}
    assert {parameter for parameter in model.parameters() if parameter.grad is not None} == trained
    assert all(adapter.up.weight.grad.abs().sum() > 0 for adapter in adapters(crosses))
    remove(model.eval())
    assert dict(model.named_modules()) == modules
    assert hooks(model) == hooked
    assert list(model.state_dict()) == keys
    model.requires_grad_(True)  # torch multiplies by frozen weights with another kernel: the last bits would differ
    with one_kernel(), torch.no_grad():
        assert torch.equal(model(x), before)


# beside the attention, where AMA and Convpass put one too


ATTENTION: dict[str, tuple[Callable[[Any], list[nn.Module]], str]] = {
    "torchvision ViT-B/16": (lambda model: list(model.encoder.layers), "self_attention"),
    "timm DeiT-III": (lambda model: list(model.blocks), "attn"),
    "timm EVA-02": (lambda model: list(model.blocks), "attn"),
    "transformers ViT": (lambda model: list(model.layers), "attention"),
    "transformers CLIP": (lambda model: list(model.encoder.layers), "self_attn"),
    "transformers DINOv2": (lambda model: list(model.encoder.layer), "attention"),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_a_convolution_beside_each_attention(name: str) -> None:
    backbone, (blocks, attribute) = BACKBONES[name], ATTENTION[name]
    model, x = built(name), batch(name)
    with one_kernel(), torch.no_grad():
        before = output(name, model, x)
        sides = [ConvAdapter(backbone.dim, grid=backbone.grid, prefix=backbone.prefix) for _ in blocks(model)]
        for block, side in zip(blocks(model), sides, strict=True):
            setattr(block, attribute, Parallel(getattr(block, attribute), side))
        assert difference(output(name, model, x), before) == 0
        nn.init.normal_(sides[0].up.weight)
        assert difference(output(name, model, x), before) > 0.01
        remove(model)
        assert torch.equal(output(name, model, x), before)
