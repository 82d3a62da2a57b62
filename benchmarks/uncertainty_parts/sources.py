"""Every source of a token's uncertainty, fitted on the source domains and read on another: {modality: "b n"}.

A source sees the truth about the
training tokens in one way only: densities and residuals are fitted on those that are clean, as their users are told to.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from fas.samples import MODALITIES
from fas.systems.base import Fusion
from torch import Tensor, nn

from balancekit import DeepEnsemble, MCDropout, dropout_confidence, mutual_information
from balancekit.uncertainty import (
    CrossModalResidual,
    FeatureDensity,
    ProbabilisticQuery,
    sample_spread,
    standard_normal_divergence,
)

from .faces import PLACES, Tokens, places, ring

Scores: TypeAlias = dict[str, Tensor]
Context: TypeAlias = dict[
    str, tuple[int, Callable[[Scores], Tensor]]
]  # a width, and how to make it of the first tokens
CHUNK = 200  # samples at a time: neighbourhoods are wide


class Read(NamedTuple):
    """What a source says of the test tokens, and the tokens that it says it of."""

    name: str
    scores: Scores
    of: Scores


def every(model: Fusion, live: Tensor, train: Tokens, dev: Tokens, test: Tokens, seed: int) -> Iterator[Read]:
    """All sources; `live` "b" are the labels of the training images."""
    torch.manual_seed(seed)
    first, block = test.first, test.block
    meter = {m: 1 - dropout_confidence(x) for m, x in test.attention.items()}
    yield Read("dropout meter, attention output (the paper's)", meter, test.attention)
    yield Read("dropout meter, block", {m: 1 - dropout_confidence(x) for m, x in block.items()}, block)
    yield Read("plain mean |x|, block", size(block), block)
    yield Read("plain mean |x|, first tokens", size(first), first)
    yield Read("real MC dropout, inside the block", mc_dropout(model, test), block)
    yield Read("ensemble of 5 token classifiers", ensemble(live, train, test, seed), block)
    yield Read("probabilistic query, its variance", probabilistic(live, train, test), block)
    yield Read("density, block", density(train, test, lambda tokens: tokens.block), block)
    yield Read("density, first tokens", density(train, test, lambda tokens: tokens.first), first)
    near, sure_near = placed_density(train, dev, test)
    yield Read("density by place, first tokens", near, first)
    place: Context = {"place": (PLACES, lambda tokens: places(tokens["rgb"]))}
    around: Context = {"around": (8 * sum(x.shape[-1] for x in first.values()), neighbours)}
    yield Read("disagreement: others", disagreement(train, dev, test, {})[0], first)
    apart, sure_apart = disagreement(train, dev, test, place)
    yield Read("disagreement: others, place", apart, first)
    yield Read("disagreement: others, place, all neighbours", disagreement(train, dev, test, place | around)[0], first)
    both = {m: -(sure_near[m].log() + sure_apart[m].log()) for m in MODALITIES}
    yield Read("density by place and disagreement (others, place)", both, first)
    dirty = train._replace(failure=torch.zeros_like(train.failure))
    yield Read("the same disagreement, fitted on bad tokens too", disagreement(dirty, dev, test, place)[0], first)


def size(layer: Scores) -> Scores:
    """What the dropout meter is a function of."""
    return {m: x.abs().mean(-1) for m, x in layer.items()}


def mc_dropout(model: Fusion, test: Tokens, rate: float = 0.3) -> Scores:
    """Spread of the tokens behind attention and MLP, 20 samples."""
    scores = {}
    for m in MODALITIES:
        block = _Block(model, m, rate)
        with torch.no_grad():
            parts = [sample_spread(MCDropout(block)(x)) for x in test.embedded[m].split(CHUNK)]
        scores[m] = torch.cat(parts)[:, 1:]
    return scores


class _Block(nn.Module):
    """The block of one modality as one module, with dropout at another rate."""

    def __init__(self, model: Fusion, modality: str, rate: float) -> None:
        super().__init__()
        (block,) = copy.deepcopy(model.trunk.encoders[modality].blocks)
        self.attention, self.norm, self.mlp = block.attention, block.norm, block.mlp
        self.attention[1].p = self.mlp[2].p = rate

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(self.norm(x))


def ensemble(live: Tensor, train: Tokens, test: Tokens, seed: int) -> Scores:
    """Mutual information of five small classifiers of single tokens, live against attack."""
    scores = {}
    for m, x in train.block.items():
        members = DeepEnsemble.build(lambda width=x.shape[-1]: _classifier(width), 5, seed=seed)
        _fit(members, lambda logits, y: F.cross_entropy(logits.flatten(0, 1), y.repeat(5)), x, live)
        with torch.no_grad():
            scores[m] = mutual_information(members(test.block[m]).softmax(-1))
    return scores


def probabilistic(live: Tensor, train: Tokens, test: Tokens) -> Scores:
    """Mean σ of a variational bottleneck on single tokens, trained to tell live from attack."""
    scores = {}
    for m, x in train.block.items():
        head, classify = ProbabilisticQuery(x.shape[-1]), nn.Linear(x.shape[-1], 2)
        both = nn.ModuleDict({"head": head, "classify": classify})

        def loss(tokens: Tensor, y: Tensor, head: nn.Module = head, classify: nn.Module = classify) -> Tensor:
            query = head(tokens)
            rate = standard_normal_divergence(query.mean, log_variance=query.log_variance).mean()
            return F.cross_entropy(classify(query.draw()), y) + 1e-3 * rate

        _fit(both, loss, x, live, direct=True)
        with torch.no_grad():
            scores[m] = head(test.block[m]).std.mean(-1)
    return scores


def density(train: Tokens, test: Tokens, layer: Callable[[Tokens], Scores]) -> Scores:
    """Distance to the clean tokens of all places."""
    scores = {}
    for index, (m, x) in enumerate(layer(train).items()):
        fitted = FeatureDensity(x.shape[-1])
        fitted.accumulate(x[train.failure[:, index] == 0])
        fitted.commit()
        scores[m] = fitted(layer(test)[m])
    return scores


def placed_density(train: Tokens, dev: Tokens, test: Tokens) -> tuple[Scores, Scores]:
    """Distance to the clean tokens of the same place, and its confidence."""
    place = torch.arange(PLACES)
    scores, sure = {}, {}
    for index, (m, x) in enumerate(train.first.items()):
        fitted = FeatureDensity(x.shape[-1], classes=PLACES)
        clean, clean_dev = train.failure[:, index] == 0, dev.failure[:, index] == 0
        fitted.accumulate(x[clean], place.expand(clean.shape)[clean])
        fitted.commit()
        fitted.calibrate(dev.first[m][clean_dev], place.expand(clean_dev.shape)[clean_dev])
        fitted.commit()
        scores[m], sure[m] = fitted(test.first[m], place), fitted.confidence(test.first[m], place)
    return scores, sure


def neighbours(first: Scores) -> Tensor:
    """The rings around each token in all modalities."""
    return torch.cat([ring(x) for x in first.values()], -1)


def disagreement(train: Tokens, dev: Tokens, test: Tokens, context: Context) -> tuple[Scores, Scores]:
    """Residual of predicting one modality's first tokens from the others' and `context`; and its confidence."""
    widths = {m: x.shape[-1] for m, x in train.first.items()}
    fitted = CrossModalResidual(widths, context={name: width for name, (width, _) in context.items()})

    def inputs(part: Tokens) -> Scores:
        return part.first | {name: read(part.first) for name, (_, read) in context.items()}

    def chunks(t: Tokens) -> Iterator[Tokens]:
        return (t.select(slice(i, i + CHUNK)) for i in range(0, len(t.failure), CHUNK))

    for add, of in ((fitted.accumulate, train), (fitted.calibrate, dev)):
        for part in chunks(of):
            clean = part.clean()
            add({name: x[clean] for name, x in inputs(part).items()})
        fitted.commit()
    scores = [fitted(inputs(part)) for part in chunks(test)]
    sure = [fitted.confidence(inputs(part)) for part in chunks(test)]
    return _joined(scores), _joined(sure)


def _joined(parts: list[Scores]) -> Scores:
    return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}


def _classifier(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 2))


def _fit(
    model: nn.Module, loss: Callable[..., Tensor], x: Tensor, live: Tensor, *, direct: bool = False, steps: int = 400
) -> None:
    """Train on random tokens of random images; `direct`: the loss calls the model itself."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        image, token = torch.randint(len(x), (512,)), torch.randint(x.shape[1], (512,))
        batch, y = x[image, token], live[image].long()
        optimizer.zero_grad()
        (loss(batch, y) if direct else loss(model(batch), y)).backward()
        optimizer.step()
