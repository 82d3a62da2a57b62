"""Gradient accumulation: several small batches, one step.

    python examples/loops/accumulation.py

Surgery acts on each small batch, and what it makes adds up. It is not the surgery of the large batch: conflicts are
judged in each. An update that is scaled is scaled once, by what the last small batch says.
"""

from journeys import Journey, Streams, batches, run

SMALL = 4  # batches a step


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)
    for step, (x, y) in enumerate(batches(), start=1):
        (loss_of(model, x, y) / SMALL).backward()
        if step % SMALL == 0:
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    run(train)
