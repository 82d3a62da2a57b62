"""Is the stand-in fit for its purpose: what is measured on each seed. ``judgement`` says whether that is enough.

``shortcut``: a few numbers of the whole image hardly tell live from attack. ``mark``: corrupted tokens are few, and do
not know the label. ``a`` to ``f``: the fastest modality on the sources is not the best one on the target;
concatenation can be worse than the best single one; better fusion exists; an identity tells nothing; the domains can
be learnt; a new domain is harder, but no lottery.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fas.samples import DOMAINS, MODALITIES, Samples, concatenate

from .probe import EPOCHS, probe
from .profiles import PROFILES
from .shortcuts import shortcuts
from .split import IDENTITIES, cached_split, roll_call

Array = np.ndarray
COUNTS = {"train": 900, "dev": 200, "test": 800}  # more than a study trains on: what the data hold is to be found
LONGER = 4  # one domain has a third of the data of three, and gets a third more steps
FUSIONS = ("concatenation", "late mean", "oracle")


class Figure(NamedTuple):
    """One measured number."""

    criterion: str
    where: str  # a domain
    name: str
    value: float


def measure_domain(folder: Path | str, domain: str, seed: int, counts: Mapping[str, int] = COUNTS) -> list[Figure]:
    """What one domain shows by itself: shortcuts, marks, (d) identities, and (e) what can be learnt within it."""
    train, dev, test = (cached_split(folder, domain, split, counts[split], seed=seed) for split in counts)
    live = test.live.numpy()
    figures = [Figure("shortcut", domain, name, area) for name, area in shortcuts(test, seed=seed).items()]
    for m, name in enumerate(MODALITIES):
        marked = test.corrupted[:, m].double().mean((1, 2)).numpy()
        figures.append(Figure("mark share", domain, name, marked.mean().item()))
        figures.append(Figure("mark label", domain, name, float(roc_auc_score(live, marked))))
    figures.append(Figure("d", domain, "identity", identity_auc(domain, seed)))
    known = test.select(torch.tensor([name == "live" or name in PROFILES[domain].attacks for name in test.kind_names]))
    scores = probe(train, dev, [known], MODALITIES, seed, epochs=EPOCHS * LONGER).scores[0]
    figures.append(Figure("e", domain, "concatenation", float(roc_auc_score(known.live.numpy(), scores))))
    return figures


def measure_target(folder: Path | str, target: str, seed: int, counts: Mapping[str, int] = COUNTS) -> list[Figure]:
    """What networks trained on the three other domains know of them early, and of `target` in the end."""
    train, dev = (
        concatenate([cached_split(folder, d, split, counts[split], seed=seed) for d in DOMAINS if d != target])
        for split in ("train", "dev")
    )
    test = cached_split(folder, target, "test", counts["test"], seed=seed)
    single = {m: probe(train, dev, [test], (m,), seed) for m in MODALITIES}
    together = probe(train, dev, [test], MODALITIES, seed)
    scores = {m: result.scores[0] for m, result in single.items()}
    table = np.stack(list(scores.values()), 1)
    scores |= dict(zip(FUSIONS, (together.scores[0], table.mean(1), oracle(table, test)), strict=True))
    live = test.live.numpy()
    figures = [Figure("early", target, m, result.early) for m, result in single.items()]
    return figures + [Figure("target", target, name, float(roc_auc_score(live, s))) for name, s in scores.items()]


def oracle(table: Array, test: Samples) -> Array:
    """Probabilities "b m" joined as best one can with the target's own labels, cross-fitted over two halves of people.

    A logistic regression on log-odds: no method that anybody could use, but what fusion of these scores could reach.
    """
    odds = np.log(np.clip(table, 1e-6, 1)) - np.log(np.clip(1 - table, 1e-6, 1))
    first, live = test.identity.numpy() % 2 == 0, test.live.numpy()
    joined = np.empty(len(live))
    for half in (first, ~first):
        joined[~half] = LogisticRegression(max_iter=1000).fit(odds[half], live[half]).decision_function(odds[~half])
    return joined


def identity_auc(domain: str, seed: int, *, draws: int = 1500) -> float:
    """How well the live rate of each identity, learnt on one random draw at the natural ratio, ranks another draw."""
    live, who = roll_call(domain, "train", 4 * draws)
    fit, judge = np.random.default_rng(seed).integers(len(live), size=(2, draws))
    rate = np.array([live[fit][who[fit] == k].mean() for k in range(IDENTITIES["train"])])
    return float(roc_auc_score(live[judge], rate[who[judge]]))
