"""Lightning with automatic optimisation: ``training_step`` returns the loss.

    python examples/loops/lightning_module.py

Accumulation, clipping, precision and DDP are options of the Trainer, as ever.
"""

import lightning.pytorch as lightning
from journeys import DEVICE, Journey, Streams, X, batches, run
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader


class Module(lightning.LightningModule):
    def __init__(self, model: Streams, journey: Journey) -> None:
        super().__init__()
        self.model = model
        self.optimizer, self.loss_of = journey(model)

    def training_step(self, batch: tuple[X, Tensor], index: int) -> Tensor:
        return self.loss_of(self.model, *batch)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer


def train(model: Streams, journey: Journey) -> None:
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator=DEVICE.type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(model, journey), DataLoader(batches(), batch_size=None))


if __name__ == "__main__":
    run(train)
