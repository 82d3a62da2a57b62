"""The example's own model, training and command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fas.data import FaceData
from fas.model import FaceNet
from fas.samples import DOMAINS, MODALITIES, concatenate
from fas.sets.layouts import write_layout
from fas.standin import make_split
from fas.train import Options, System, fit, score, share_in_conflict

from balancekit import PrototypeBank, Rebalancer, ReGrad, prototypical_cross_entropy, single_side_labels

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def samples():
    return concatenate([make_split(domain, "train", 24, seed=5) for domain in "SC"])


def one_step(model: FaceNet, samples) -> list:
    """A step with everything on; returns what the surgery saw."""
    batch = FaceData(samples)[range(16)]
    output = model(batch.inputs)
    labels = single_side_labels(batch.live, batch.domain)
    losses = {}
    for m, feature in output.features.items():
        bank = PrototypeBank(1 + len(DOMAINS), model.width, decay=0.2)
        bank.update(feature, labels)
        losses[m] = prototypical_cross_entropy(feature, labels, bank.prototypes, seen=bank.seen)
    seen = []
    balancer = Rebalancer(model.branches(), ReGrad(), weight=0.3)
    balancer.register_step_hook(seen.append)
    balancer(F.cross_entropy(output.logits, batch.live.long()), losses).backward()
    return seen


def test_every_trainable_tensor_is_visited(samples) -> None:
    torch.manual_seed(0)
    model = FaceNet()
    (surgery,) = one_step(model, samples)
    branches = model.branches()
    owned = branches.owners()
    rest = [name for name, parameter in model.named_parameters() if parameter not in owned]
    assert rest == ["head.weight", "head.bias"]
    assert len(owned) == len(list(model.parameters())) - 2
    assert surgery.path == "partial"  # above the last adapters a branch has only its own loss: one granule for all that
    counts = torch.bincount(surgery.step.owner).tolist()
    assert all(1 < count < len(branches[m]) for m, count in zip(MODALITIES, counts, strict=True))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_adapters_belong_to_the_branch_that_receives() -> None:
    model = FaceNet()
    owned = model.branches().owners()
    adapters = dict(model.cross[0].adapters.items())
    assert list(adapters) == ["rgb_to_depth", "depth_to_rgb", "rgb_to_infrared", "infrared_to_rgb"]
    for name, adapter in adapters.items():
        assert {owned[p] for p in adapter.parameters()} == {name.split("_to_")[1]}


def test_modalities_meet_only_in_the_adapters(samples) -> None:
    for adapters in (True, False):
        torch.manual_seed(0)
        model = FaceNet(adapters=adapters)
        model.head.requires_grad_(True)
        (surgery,) = one_step(model, samples)
        assert surgery.path == ("partial" if adapters else "collapse")


def test_the_untrained_network_is_the_same_with_and_without_adapters(samples) -> None:
    with_adapters, without = FaceNet(), FaceNet(adapters=False)
    without.load_state_dict({k: v for k, v in with_adapters.state_dict().items() if not k.startswith("cross")})
    inputs = FaceData(samples)[range(8)].inputs
    with_adapters.eval(), without.eval()
    assert torch.equal(with_adapters(inputs).logits, without(inputs).logits)


def test_share_in_conflict() -> None:
    gram = torch.zeros(2, 4, 4)
    gram[0, 1:, 1:] = torch.tensor([[1.0, 0.5, -0.5], [0.5, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    gram[1, 1, 1] = 1.0
    assert share_in_conflict(gram).item() == pytest.approx(2 / 3)
    assert share_in_conflict(torch.zeros(1, 3, 3)).item() == 0.0


@pytest.mark.parametrize(
    "off", [(), ("adapter",), ("uem",), ("ssp",), ("regrad",), ("adapter", "uem", "ssp", "regrad")]
)
def test_each_part_can_be_switched_off(samples, off: tuple) -> None:
    system = System()._replace(**dict.fromkeys(off, False))
    fitted = fit(system, samples, Options(epochs=1, batch=24))
    assert len(fitted.history.conflicts) == (0 if "ssp" in off else 2)
    scores, confidence = score(fitted.model, samples)
    assert scores.isfinite().all()
    assert {m: tuple(c.shape) for m, c in confidence.items()} == dict.fromkeys(MODALITIES, (48, 64))


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(samples, tmp_path: Path) -> None:
    options, place = Options(epochs=2, batch=24), tmp_path / "state.pt"
    whole = fit(System(), samples, options)

    class Interrupted(Exception):
        pass

    steps = []

    def progress(count: int) -> None:
        steps.append(count)
        if len(steps) == 3:  # in the middle of the second epoch
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(System(), samples, options, checkpoint=place, progress=progress)
    resumed = fit(System(), samples, options, checkpoint=place, resume=True)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    assert resumed.history == whole.history
    with pytest.raises(ValueError, match=r"resume: expected .*regrad=False.*found .*regrad=True"):
        fit(System(regrad=False), samples, options, checkpoint=place, resume=True)


def command(*arguments: str, cwd: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "fas_surf.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_command_line_on_list_files_of_all_four_layouts(tmp_path: Path) -> None:
    lists = []
    for domain, split in [*((d, s) for d in "SCP" for s in ("train", "dev")), ("W", "test")]:
        samples = make_split(domain, split, 30, seed=6)
        if domain == "P":
            samples = samples._replace(kind=torch.where(samples.live, 0, 13))
        path = write_layout(samples, tmp_path / "data", domain, split=f"{domain}-{split}")
        lists.append(f"{domain}:{split}={path}")
    broken = Path(lists[0].split("=")[1])
    broken.write_text(broken.read_text() + "\nCASIA-SURF-CROP/real_part/CLKJ_1/real.rssdk/color/1.jpg b c 1")
    arguments = (
        "--data",
        str(tmp_path / "data"),
        "--epochs",
        "1",
        "--ablate",
        "regrad",
        "--out",
        str(tmp_path / "out"),
    )
    text = command(*arguments, "--lists", *lists, cwd=tmp_path)
    assert "without regrad" in text
    assert f"{broken}:31" in text
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {
        "attacks.png", "convergence.png", "roc.png", "scores-concatenation.png", "scores-full.png", "uncertainty.png"
    }  # fmt: skip
    again = command(*arguments, "--resume", "--lists", *lists, cwd=tmp_path)  # everything is done already
    table = slice(text.index("→ W"), text.index("pictures in"))
    assert text[table] == again[again.index("→ W") : again.index("pictures in")]
