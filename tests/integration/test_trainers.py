"""Foreign training loops: Accelerate and the Hugging Face Trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import Branches, Rebalancer, ReGrad
from tests.integration import literal
from tests.integration.test_loops import assert_same, loss_of, plain_loop
from tests.models import Toy, batches

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

M = 3
PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


@pytest.fixture
def _one_process() -> Iterator[None]:
    """Accelerate keeps its state in the process."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@PATHS
@pytest.mark.usefixtures("_one_process")
def test_accelerate_accumulates_and_clips(coupled: bool) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    toy = Toy(M, coupled=coupled)
    balancer = Rebalancer(toy.branches(), ReGrad(), weight=0.3)
    loader = torch.utils.data.DataLoader(list(batches(6, M)), batch_size=None)
    sgd = torch.optim.SGD(toy.parameters(), lr=0.1, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(toy, sgd, loader)
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, balancer, x, y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert_same(toy, plain_loop(coupled, accumulate=3, clip=1.0))


class Tagger(nn.Module):
    """Two streams that label tokens, together and each alone; -100 is padding."""

    accepts_loss_kwargs = True  # the Trainer then counts the labels of all micro-batches

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.coupled = coupled
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.joint = nn.Linear(8, 5)
        self.double()

    def forward(
        self, x: Tensor, labels: Tensor, num_items_in_batch: Tensor | int, **_: object
    ) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = self.a(x[:, 0]), self.b(x[:, 1])
        if self.coupled:
            a, b = a + a * b.tanh(), b - a.tanh()

        def loss(logits: Tensor) -> Tensor:
            flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            return flat / num_items_in_batch

        pad = nn.functional.pad
        return loss(self.joint(torch.cat([a, b], -1))), {"a": loss(pad(a, (0, 1))), "b": loss(pad(b, (1, 0)))}

    def balancer(self) -> Rebalancer:
        return Rebalancer(Branches(self, {"a": "a", "b": "b"}), ReGrad(), weight=0.3)


def sentences() -> list[dict[str, Tensor]]:
    """Six micro-batches of two sentences of six tokens, with more and more padding."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(6):
        labels = torch.randint(0, 5, (2, 6), generator=generator)
        labels[:, 6 - index :] = -100
        found.append({"x": torch.randn(2, 2, 6, 3, generator=generator).double(), "labels": labels})
    return found


@PATHS
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # transformers, of itself
@pytest.mark.usefixtures("_one_process")
def test_huggingface_trainer_with_one_normaliser_for_all_losses(coupled: bool, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model, reference = Tagger(coupled), Tagger(coupled)
    balancer = model.balancer()
    counts = []

    class Balanced(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            counts.append(int(num_items_in_batch))
            total, losses = model(**inputs, num_items_in_batch=num_items_in_batch)
            loss = literal.join(balancer, total, losses)
            return (loss, losses) if return_outputs else loss

        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(sentences(), batch_size=None)

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        gradient_accumulation_steps=3,
        max_grad_norm=1.0,
        num_train_epochs=1,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Balanced(model=model, args=arguments, train_dataset=sentences()).train()

    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    hand = reference.balancer()
    data = sentences()
    for group in (data[:3], data[3:]):
        items = sum(int((batch["labels"] != -100).sum()) for batch in group)
        optimizer.zero_grad()
        for batch in group:
            for parameter, gradient in literal.by_hand(hand, *reference(**batch, num_items_in_batch=items)).items():
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    assert counts == [30, 30, 30, 12, 12, 12]
    assert_same(model, reference)
