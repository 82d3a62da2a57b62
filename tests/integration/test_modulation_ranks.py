"""Several processes find the coefficients of one process with the whole batch."""

import torch

from balancekit.losses import pmr_loss
from balancekit.modulation import AGM, ARL, MLB, OGM
from balancekit.prototypes import PrototypeBank
from tests.integration import ranks

SHARES = (slice(0, 5), slice(5, 8))  # ranks need not have equally many samples


def drawn():
    g = torch.Generator().manual_seed(0)
    logits = {m: torch.randn(8, 3, generator=g) for m in ("audio", "video", "text")}
    return logits, torch.randint(3, (8,), generator=g), {"text": torch.tensor([True, False] * 4)}


def modulators():
    return OGM(0.8), MLB(), AGM(3), ARL()


def together() -> list[dict[str, torch.Tensor]]:
    logits, labels, present = drawn()
    return [each(logits, labels, present=present) for each in modulators()]


def apart(rank: int, size: int, expected: list[dict[str, torch.Tensor]]) -> None:
    logits, labels, present = drawn()
    mine = SHARES[rank]
    for each, whole in zip(modulators(), expected, strict=True):
        k = each({m: o[mine] for m, o in logits.items()}, labels[mine], present={"text": present["text"][mine]})
        for m in whole:
            torch.testing.assert_close(k[m], whole[m], rtol=1e-5, atol=1e-6)


def test_scores_are_summed_over_the_ranks() -> None:
    ranks.run(apart, together())


def pmr(part: slice) -> torch.Tensor:
    """The loss of some of the samples, with banks that saw all."""
    features, labels, _ = drawn()
    banks = {m: PrototypeBank(3, 3, decay=0.0) for m in features}
    for m, bank in banks.items():
        bank.prototypes, bank.seen = features[m][:3].clone(), torch.ones(3, dtype=torch.bool)
    return pmr_loss({m: z[part] for m, z in features.items()}, labels[part], banks, mu=0.1)


def pmr_apart(rank: int, size: int, whole: torch.Tensor) -> None:
    mine = pmr(slice(4 * rank, 4 * rank + 4))
    torch.distributed.all_reduce(mine)
    torch.testing.assert_close(mine / size, whole)


def test_the_weights_of_pmr_are_those_of_the_whole_batch() -> None:
    ranks.run(pmr_apart, pmr(slice(0, 8)))
