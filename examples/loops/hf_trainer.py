"""The Trainer of Hugging Face transformers: ``compute_loss`` returns the loss.

    python examples/loops/hf_trainer.py

The Trainer divides the loss of a small batch by the number of small batches, or, for a model that takes
``num_items_in_batch``, leaves that to the model: then divide the unimodal losses by the same number.
"""

from tempfile import TemporaryDirectory
from typing import Any

import torch.nn.functional as F
from journeys import DEVICE, Journey, Streams, batches, run
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)

    class Balanced(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Any:
            if model.training:
                return loss_of(model, inputs["x"], inputs["labels"])
            logits = model(inputs["x"])  # evaluation: nothing is learnt of it, by banks neither
            loss = F.cross_entropy(logits, inputs["labels"])
            return (loss, {"logits": logits}) if return_outputs else loss

        def get_train_dataloader(self) -> DataLoader:
            return DataLoader(data, batch_size=None)

    data = [{"x": x, "labels": y} for x, y in batches()]
    with TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            num_train_epochs=1,
            max_grad_norm=0.0,  # the plain loop does not clip
            lr_scheduler_type="constant",
            use_cpu=DEVICE.type == "cpu",
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to=[],
        )
        Balanced(model, options, train_dataset=data, optimizers=(optimizer, None)).train()


if __name__ == "__main__":
    run(train)
