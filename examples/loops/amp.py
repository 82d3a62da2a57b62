"""Mixed precision: autocast around the loss, a gradient scaler around the backward.

    python examples/loops/amp.py

The scale reaches every pass of the surgery, as these run inside the backward of the scaled loss; Gram matrices and
weights are computed in float32. ``scaler.unscale_`` comes before clipping and before anything that reads gradients.
"""

import torch
from journeys import DEVICE, Journey, Streams, batches, run


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)
    scaler = torch.amp.GradScaler(DEVICE.type)
    for x, y in batches():
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = loss_of(model, x, y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


if __name__ == "__main__":
    run(train)
