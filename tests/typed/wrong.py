"""Wrong uses that a type checker must refuse: ``python tests/typed/check.py`` finds errors in the marked lines alone.

Never run: most of these lines raise.
"""

from functools import partial

import torch
from torch import Tensor, nn

import balancekit as bk
from balancekit import diagnostics, losses, modulation, sampling, schedules, surgery

x, labels = torch.ones(4, 6), torch.zeros(4, dtype=torch.int64)
model = nn.ModuleDict({"rgb": nn.Linear(6, 8), "depth": nn.Linear(6, 8)})
branches = bk.Branches(model, {"rgb": "rgb", "depth": "depth"})
bank = bk.PrototypeBank(3, 8, decay=0.9)


class NoMark:
    """A rule that does not say whether it uses the total."""

    def __call__(self, gram: Tensor, step: bk.Step) -> Tensor:
        return torch.ones_like(gram[..., 0])


class OneArgument:
    """A rule that does not take the step."""

    uses_total = False

    def __call__(self, gram: Tensor) -> Tensor:
        return torch.ones_like(gram[..., 0])


# branches
bk.Branches(model, ["rgb", "depth"])  # error: groups have names
bk.Branches(model, {"rgb": 0})  # error: no target
with branches.capture() as features:
    features["rgb"] = x  # error: read only

# surgery
bk.ReGrad(0.1)  # error: by name
bk.ReGrad(margin="0.1")  # error
bk.Rebalancer(branches, bk.ReGrad)  # error: a class, not a rule
bk.Rebalancer(branches, NoMark())  # error
bk.Rebalancer(branches, OneArgument())  # error
bk.Rebalancer(model, bk.Sum())  # error: no Branches
bk.Rebalancer(branches, bk.Sum(), per="layer")  # error
bk.Rebalancer(branches, bk.Sum(), rest="none")  # error
bk.Rebalancer(branches, bk.Sum(), 0.3)  # error: by name
balancer = bk.Rebalancer(branches, bk.Sum())
balancer(x.mean(), [x.mean(), x.mean()])  # error: losses have names
balancer({"rgb": x.mean()})  # error: no total
balancer.register_step_hook(lambda done: done.weight)  # error: weights
bk.from_torchjd("upgrad")  # error
surgery.regrad_weights(x)  # error


def change(step: bk.Step) -> None:
    step.losses = x[0]  # error: read only


# prototypes
bk.PrototypeBank(3, 8)  # error: decay has no default
bk.PrototypeBank(3, 8, 0.9)  # error: by name
bank.update(x)  # error: no labels
bk.prototypical_cross_entropy(x, labels, bank)  # error: its prototypes
bk.prototypical_cross_entropy(x, labels, bank.prototypes, bank.seen)  # error: by name
bk.prototypical_cross_entropy(x, labels, bank.prototypes, reduction="average")  # error
bk.prototype_entropy(x, bank.prototypes, reduction="average")  # error
bk.single_side_labels(labels)  # error

# modulation, losses, sampling, schedules
bk.OGM()  # error: alpha has no default
bk.OGM(0.8, reference="mean")  # error
modulation.OPM(reference="mean")  # error
modulation.MLB(task="ranking")  # error
modulation.discrepancy_ratio(x, reference="mean")  # error
bk.modulate({"rgb": x}, {"rgb": 0.5})  # error: no loss
modulation.Modulation(modulation.true_class_score, lambda scores: scores, modulation.behind_coefficient)  # error
modulation.scale_updates(model, {"rgb": 0.5})  # error: no optimizer
weight: Tensor = bk.pmr_weights(x[0])  # error: two of them
losses.unimodal_loss(x, labels)  # error: logits have names
sampling.remix_batches(labels, 2, True)  # error: by name
schedules.soft_reset(model, model, 0.5)  # error: its state

# uncertainty
bk.MCDropout(nn.Dropout)  # error: a class, not a module
bk.MCDropout(model, backend="map")  # error
bk.MCDropout(model, exclude="rgb")  # error
bk.DeepEnsemble(nn.Linear)  # error
bk.DeepEnsemble.build(nn.Linear(6, 8), 5)  # error: no seed
bk.dropout_confidence(x, method="exact")  # error
bk.dropout_std(x, 0.3, 20)  # error: by name
bk.dropout_std(x, samples=20.5)  # error
bk.linear_dropout_moments(x, x, covariance="low-rank")  # error
bk.FeatureDensity(6, covariance="tied")  # error
bk.CrossModalResidual(["rgb", "depth"])  # error: widths
bk.mutual_information(x, corrected="yes")  # error

# adapters
bk.GatedCrossAttention(16, gate="value")  # error
bk.GatedCrossAttention(16, conv="same")  # error
bk.hub(("rgb", "depth"), "rgb")  # error: the centre first
bk.CrossModal(("rgb", "depth"), "rgb-depth", nn.Identity())  # error
bk.CrossModal(("rgb", "depth"), bk.hub("rgb", ("rgb", "depth")), partial(int, 16))  # error
bk.Parallel(model)  # error
bk.Tap("attn", bk.dropout_confidence)  # error
bk.train_only(model, [model["rgb"]])  # error: unpacked
bk.AMA(("rgb", "depth"), 16)  # error: no grid
with bk.missing(x, x > 0):  # error: no module
    pass

# diagnostics
with bk.watch(model, every=1) as history:  # error: no source
    print(history.alarms)
bk.watch(balancer, optimiser=None)  # error: optimizer
with bk.watch(balancer) as history:
    history.applied("weights", {"rgb": 0.5})  # error
    first: int = history.last["coefficient/rgb"]  # error
    diagnostics.probe_accuracy(x, labels)  # error
