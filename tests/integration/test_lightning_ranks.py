"""Lightning with DistributedDataParallel on two ranks: accumulation and clipping."""

import logging
import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from balancekit import Rebalancer, ReGrad
from tests.integration import literal, ranks
from tests.integration.test_loops import assert_same, loss_of
from tests.models import Toy, batches

lightning = pytest.importorskip("lightning.pytorch")

M = 3


class Module(lightning.LightningModule):
    def __init__(self, coupled: bool) -> None:
        super().__init__()
        self.toy = Toy(M, coupled=coupled)
        self.toy.heads.requires_grad_(coupled)
        self.balancer = Rebalancer(self.toy.branches(), ReGrad(), weight=0.3)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return loss_of(self.toy, self.balancer, *batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def fit(rank: int, size: int, folder: Path) -> None:
    """Lightning joins the process group that is already there, as under torchrun."""
    launched = {"TORCHELASTIC_RUN_ID": "0", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in {**launched, "LOCAL_WORLD_SIZE": size}.items()})
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for coupled in (True, False):
        data = [(x + 0.1 * rank, y - rank) for x, y in batches(4, M)]
        module, reference = Module(coupled), Module(coupled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lightning's own advice about workers and loggers
            trainer = lightning.Trainer(
                max_epochs=1,
                accumulate_grad_batches=2,
                gradient_clip_val=1.0,
                strategy="ddp",
                devices=size,
                use_distributed_sampler=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                accelerator="cpu",
                default_root_dir=folder,
            )
            trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=None))
        assert trainer.world_size == size
        optimizer = reference.configure_optimizers()
        for index, batch in enumerate(data):
            for parameter, gradient in literal.by_hand(reference.balancer, *reference.toy(*batch)).items():
                gradient = gradient / 2
                dist.all_reduce(gradient)
                gradient /= size
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            if index % 2:
                nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        assert_same(module, reference)


def test_lightning_ddp_with_accumulation_and_clipping(tmp_path: Path) -> None:
    ranks.run(fit, tmp_path)
