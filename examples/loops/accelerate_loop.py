"""Accelerate: ``accelerator.backward(loss)``.

python examples/loops/accelerate_loop.py
"""

from accelerate import Accelerator
from journeys import DEVICE, Journey, Streams, batches, run
from torch.utils.data import DataLoader


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)
    accelerator = Accelerator(cpu=DEVICE.type == "cpu")
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(batches(), batch_size=None))
    for x, y in loader:
        loss = loss_of(wrapped, x, y)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()


if __name__ == "__main__":
    run(train)
