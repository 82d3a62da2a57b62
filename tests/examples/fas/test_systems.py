"""What the systems are wired to do."""

import pytest
import torch
import torch.nn.functional as F
from fas.backbones import SMALL
from fas.data import MISSING, FaceData, hide
from fas.samples import DOMAINS, MODALITIES, concatenate
from fas.standin import make_split
from fas.study import SENSORS
from fas.systems import ABLATION, SYSTEMS, Setup
from fas.systems.mmdg import MMDG, Parts, share_in_conflict
from fas.systems.modality_dropout import RATE, ModalityDropout
from fas.systems.repaired import Repaired
from fas.systems.sensors import SensorDensity
from fas.systems.ssdg import SSDG

from balancekit import reversal_strength

SETUP = Setup(SMALL, dict(SENSORS), len(DOMAINS))
EVERY = SYSTEMS | ABLATION
SURGERY = [name for name in EVERY if name.startswith(("MMDG", "without", "ReGrad")) and name != "without SSP"]


@pytest.fixture(scope="module")
def samples():
    return concatenate([make_split(domain, "train", 24, seed=5) for domain in "SC"])


@pytest.fixture(scope="module")
def batch(samples):
    return FaceData(samples, generator=torch.Generator().manual_seed(0))[range(8, 40)]


def looks(samples):
    return lambda: FaceData(samples).batches(32)


def made(name: str, samples):
    """A system that has looked at its data."""
    torch.manual_seed(0)
    system = EVERY[name](SETUP)
    with torch.no_grad():
        system.eval().prepare(looks(samples), looks(samples), 0)
    return system.train()


@pytest.mark.parametrize("name", EVERY)
def test_every_tensor_of_every_system_learns(name: str, samples, batch) -> None:
    system = made(name, samples)
    seen = []
    if name in SURGERY:
        system.balancer.register_step_hook(seen.append)
    optimizer = torch.optim.SGD(system.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in system.named_parameters()}
    # zero-initialised adapters let nothing through in the first step; those of AMA stand behind each other
    steps = 3 if name == "ViT + AMA" else 2
    for progress in (0.5, 0.6, 0.7)[:steps]:
        loss = system.loss(system(system.seen_in_training(batch)), batch, progress)
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        assert [key for key, value in system.named_parameters() if value.grad is None] == []
        optimizer.step()
    assert all(value.grad.isfinite().all() for value in system.parameters())
    still = {key for key, value in system.named_parameters() if torch.equal(value, before[key])}
    assert still == set()
    assert len(seen) == len(system.conflicts) == (2 if name in SURGERY else 0)


@pytest.mark.parametrize("make", [MMDG, Repaired])
def test_the_surgery_visits_everything_but_the_head(make, samples, batch) -> None:
    system = make(SETUP)
    seen = []
    system.balancer.register_step_hook(seen.append)
    with torch.no_grad():
        system.eval().prepare(looks(samples), looks(samples), 0)
    system.train()
    loss = system.loss(system(batch.inputs), batch, 0.0)
    loss.backward()
    branches, (surgery,) = system.branches(), seen
    owned = branches.owners()
    rest = [key for key, parameter in system.named_parameters() if parameter not in owned]
    assert rest == ["network.head.weight", "network.head.bias"]
    assert all(parameter.requires_grad for parameter in owned)
    counts = torch.bincount(surgery.step.owner).tolist()  # granules, each a tensor or what is alike of a branch
    encoder = system.network.trunk.encoders["rgb"]
    (block,) = encoder.blocks
    read = [
        encoder.class_token,
        *(p for part in (encoder.stem, block.attention, block.norm) for p in part.parameters()),
    ]
    # what adapters read of an encoder is reached by several losses; the rest of a branch, by its own alone
    assert surgery.path == "partial" and counts == [len(read) + 1] * len(MODALITIES)


@pytest.mark.parametrize("make", [MMDG, Repaired])
def test_adapters_belong_to_the_branch_that_receives(make) -> None:
    system = make(SETUP)
    owned = system.branches().owners()
    for cross in system.network.cross:
        adapters = dict(cross.adapters.items())
        assert list(adapters) == ["rgb_to_depth", "depth_to_rgb", "rgb_to_infrared", "infrared_to_rgb"]
        for name, adapter in adapters.items():
            assert {owned[p] for p in adapter.parameters()} == {name.split("_to_")[1]}


def test_modalities_meet_only_in_the_adapters(samples, batch) -> None:
    for adapter in (True, False):
        system = MMDG(SETUP, Parts(adapter=adapter))
        for cross in system.network.cross:
            torch.nn.init.ones_(cross.adapters["depth_to_rgb"].up.weight)
        features = system.network.trunk(batch.inputs)
        depth = list(system.network.trunk.encoders["depth"].stem.parameters())
        reached = {}
        for m, feature in features.items():
            gradients = torch.autograd.grad(feature.square().sum(), depth, retain_graph=True, allow_unused=True)
            reached[m] = any(g is not None and bool(g.any()) for g in gradients)
        assert reached == {"rgb": adapter, "depth": True, "infrared": False}


@pytest.mark.parametrize("make", [MMDG, Repaired])
def test_the_untrained_network_is_the_same_with_and_without_adapters(make, samples, batch) -> None:
    with_adapters, without = make(SETUP), MMDG(SETUP, Parts(adapter=False))
    with torch.no_grad():
        with_adapters.eval().prepare(looks(samples), looks(samples), 0)
    state = with_adapters.network.state_dict()
    fits = {key: v for key, v in state.items() if key in without.network.state_dict()}
    without.network.load_state_dict(fits)  # strictly: nothing of the plain network is left as it was
    assert torch.equal(with_adapters.eval()(batch.inputs).logits, without.eval()(batch.inputs).logits)


def test_share_in_conflict() -> None:
    gram = torch.zeros(2, 4, 4)
    gram[0, 1:, 1:] = torch.tensor([[1.0, 0.5, -0.5], [0.5, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    gram[1, 1, 1] = 1.0
    assert share_in_conflict(gram).item() == pytest.approx(2 / 3)
    assert share_in_conflict(torch.zeros(1, 3, 3)).item() == 0.0


@pytest.mark.parametrize("released", [False, True])
def test_ssdg_reverses_the_gradient_of_the_features_alone(released: bool, batch, monkeypatch) -> None:
    system = SSDG(SETUP, released=released).eval()  # no dropout in the discriminator: only the reversal differs
    output = system(batch.inputs)
    (fused,) = output.features.values()
    parameters = list(system.discriminator.parameters())

    def gradients() -> list[torch.Tensor]:
        return torch.autograd.grad(system.loss(output, batch, 0.7), [fused, *parameters], retain_graph=True)

    with_reversal = gradients()
    without = {}
    for sign in (0.0, 1.0):  # nothing comes back, or what an ordinary path would let through
        monkeypatch.setattr("fas.systems.ssdg.reverse_gradient", lambda x, _, s=sign: x if s else x.detach())
        without[sign] = gradients()
    adversary = without[1.0][0] - without[0.0][0]
    assert adversary.abs().max() > 1e-4
    strength = reversal_strength(0.7, 1.0, k=10.0)
    assert strength > 0.9
    torch.testing.assert_close(with_reversal[0] - without[0.0][0], -strength * adversary)
    for own, plain in zip(with_reversal[1:], without[1.0][1:], strict=True):
        assert torch.equal(own, plain) and own.any()


def test_modality_dropout_hides_some_and_never_all(samples) -> None:
    batch = FaceData(samples, generator=torch.Generator().manual_seed(1))[list(range(48)) * 20]
    system = ModalityDropout(SETUP)
    seen = system.seen_in_training(batch)
    gone = torch.stack([(seen[m] == MISSING).flatten(1).all(1) for m in MODALITIES], 1)
    drawn = batch.chance < RATE
    assert drawn.all(1).any() and not gone.all(1).any()
    assert torch.equal(gone, drawn & ~drawn.all(1, keepdim=True))
    for column, m in enumerate(MODALITIES):
        assert torch.equal(seen[m], hide(batch.inputs, [m], gone[:, column])[m])
        assert gone[:, column].float().mean().item() == pytest.approx(RATE - RATE**3, abs=0.05)
    testing = next(FaceData(samples).batches(48))
    assert (testing.chance == 1).all()
    assert all(torch.equal(x, testing.inputs[m]) for m, x in system.seen_in_training(testing).items())


def test_a_missing_modality_is_the_same_tensor_in_training_and_in_testing(samples) -> None:
    training = FaceData(samples, generator=torch.Generator().manual_seed(2))[range(48)]
    training = training._replace(chance=torch.tensor([[1.0, 0.0, 1.0]]).expand(48, 3))
    seen = ModalityDropout(SETUP).seen_in_training(training)["depth"]
    testing = hide(next(FaceData(samples).batches(48)).inputs, ["depth"])["depth"]
    assert torch.equal(seen, testing)


def test_the_density_distrusts_what_a_sensor_spoiled(samples) -> None:
    dev = concatenate([make_split(domain, "dev", 24, seed=5) for domain in "SC"])
    density = SensorDensity(SETUP.channels, (8, 8))
    density.fit(looks(samples), looks(dev))
    inputs = next(FaceData(dev).batches(48)).inputs
    clean = torch.cat([*density(inputs).values()])
    assert clean.shape == (3 * 48, 65)
    torch.testing.assert_close(clean[:, 0], clean[:, 1:].mean(1))
    infrared = inputs["infrared"].clone()
    infrared[:, :, 24:32, 32:40] = 127.5 / 128  # patch (3, 4) is blinded
    blind = torch.cat([*density({**inputs, "infrared": infrared}).values()])
    changed = (clean != blind)[:, 1:].unflatten(0, (3, 48))
    assert changed[2, :, 3 * 8 + 4].all() and changed.sum() == 48
    assert blind[96:, 1 + 3 * 8 + 4].max() < 0.01
    assert clean[96:, 1 + 3 * 8 + 4].median() > 0.3
    assert clean[:, 1:].mean().item() == pytest.approx(0.5, abs=0.05)  # uniform on the data that calibrated it
    assert not blind.requires_grad


def test_joint_trains_a_head_on_each_modality(batch) -> None:
    system = EVERY["joint + unimodal"](SETUP)
    output = system(batch.inputs)
    loss = system.loss(output, batch, 0.0)
    fused = F.cross_entropy(output.logits, batch.live.long())
    assert list(system.branch_losses) == list(MODALITIES)
    torch.testing.assert_close(loss, fused + sum(system.branch_losses.values()))
