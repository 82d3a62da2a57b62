"""Two processes that share each batch train what one process trains."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from fas.backbones import SMALL
from fas.backbones.norm import BatchNorm
from fas.samples import DOMAINS, Samples, concatenate
from fas.standin import make_split
from fas.study import SENSORS
from fas.systems import SYSTEMS, Setup, System
from fas.training import Fitted, Options, fit, place
from torch import Tensor, nn
from torch import distributed as dist

from tests.integration import ranks as gloo

NAMES = ("ViT", "MMDG")
RANKS = 2


def data() -> tuple[Samples, Samples]:
    train, dev = (concatenate([make_split(d, s, 24, seed=5) for d in "SC"]) for s in ("train", "dev"))
    return train, dev


def make(name: str) -> System:
    """Without dropout: each process draws the masks of its own share, which are not those of the whole batch."""
    system = SYSTEMS[name](Setup(SMALL, dict(SENSORS), len(DOMAINS), sync=place()[1] > 1))
    for module in system.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return system


def trained(name: str, samples: tuple[Samples, Samples]) -> Fitted:
    """Three steps, of SGD: Adam's have the same length for a gradient that is 0 but for rounding (that of a bias before
    a batch normalisation, or of the keys) as for a large one, so that its weights cannot be compared."""
    with patch.object(torch.optim, "AdamW", torch.optim.SGD):
        return fit(partial(make, name), *samples, Options(epochs=1, batch=16, lr=0.05))


def normalised(rank: int, size: int) -> dict[str, Tensor]:
    """Values, running statistics and gradients of this process's share of a batch."""
    torch.manual_seed(0)
    norm, x, weight = BatchNorm(3), 2 + 3 * torch.randn(8, 3, 5, 5), torch.randn(8, 3, 5, 5)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm.double()
    x, weight = (t.double()[rank::size].clone() for t in (x, weight))
    x.requires_grad_()
    y = norm(x)
    (y * weight).sum().backward()
    evaluated = norm.eval()(x)
    return {"y": y.detach(), "x grad": x.grad, "weight grad": norm.weight.grad, "bias grad": norm.bias.grad,
            "mean": norm.running_mean, "var": norm.running_var, "evaluated": evaluated.detach()}  # fmt: skip


def work(rank: int, size: int, folder: Path) -> None:
    samples = data()
    found = {"norm": normalised(rank, size)}
    for name in NAMES:
        run = trained(name, samples)
        found[name] = {"state": run.system.state_dict(), "losses": run.history.losses, "auc": run.history.dev_auc}
    found["whole"], found["resumed"] = interrupted(samples, folder / "state.pt")
    torch.save(found, folder / f"{rank}.pt")


class Killed(Exception):
    pass


def interrupted(samples: tuple[Samples, Samples], checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of MMDG, with its dropout, and those of the same training killed after the second of three steps."""
    system = partial(SYSTEMS["MMDG"], Setup(SMALL, dict(SENSORS), len(DOMAINS), sync=True))
    go = partial(fit, system, *samples, Options(epochs=1, batch=16), checkpoint=checkpoint, every=1)
    whole = go().system.state_dict()

    def progress(epochs: float) -> None:
        if epochs > 0.6:
            raise Killed

    with pytest.raises(Killed):
        go(progress=progress)
    dist.barrier()  # the first process has written the file that the second will read
    return whole, go(resume=True).system.state_dict()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(work, folder, size=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def test_batch_normalisation_is_that_of_the_whole_batch(ranks) -> None:
    whole = normalised(0, 1)
    for rank, found in enumerate(ranks):
        for name in ("y", "x grad", "evaluated"):
            torch.testing.assert_close(found["norm"][name], whole[name][rank::RANKS], msg=name)
        for name in ("mean", "var"):
            torch.testing.assert_close(found["norm"][name], whole[name], msg=name)
    for name in ("weight grad", "bias grad"):
        torch.testing.assert_close(sum(found["norm"][name] for found in ranks), whole[name], msg=name)


def test_two_processes_with_dropout_go_on_as_if_they_had_not_been_killed(ranks) -> None:
    for found in ranks:
        assert found["whole"].keys() == found["resumed"].keys()
        assert all(torch.equal(value, found["resumed"][key]) for key, value in found["whole"].items())


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_what_one_trains(ranks, name: str) -> None:
    torch.manual_seed(0)
    start = {key: value.clone() for key, value in make(name).state_dict().items()}
    whole = trained(name, data())
    first, second = (found[name] for found in ranks)
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), f"ranks disagree on {key}"
    far = 0.0
    for key, value in whole.system.state_dict().items():
        # float32 and sums in another order: some hundred roundings of 6e-8 in each of three steps, weights up to 1
        torch.testing.assert_close(first["state"][key], value, rtol=1e-4, atol=2e-6, msg=lambda m, k=key: f"{k}: {m}")
        far = max(far, (value - start[key]).abs().max().item() if key.endswith(("weight", "bias")) else 0.0)
    assert far > 0.01  # so much have three steps moved
    assert first["auc"] == pytest.approx(whole.history.dev_auc)
    assert len(first["losses"]) == (3 if name == "MMDG" else 0)
