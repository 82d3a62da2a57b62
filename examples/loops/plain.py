"""A plain loop. All others are compared with it.

python examples/loops/plain.py
"""

from journeys import Journey, Streams, batches, run


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)
    for x, y in batches():
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    run(train)
