"""One ReGrad step where only the wheel and its three dependencies are installed, and a look at what the wheel holds.

Run as a script: ``python tests/bare_wheel.py dist/balancekit-….whl``.
"""

import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path


def contents(wheel: str) -> None:
    """The library with its type marker and licence, and no tests, examples or benchmarks."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "balancekit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strangers = [name for name in names if not name.startswith(("balancekit/", "balancekit-"))]
    assert not strangers, strangers


def step() -> None:
    """Journey (i) on random data."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    import balancekit as bk

    assert "site-packages" in str(Path(bk.__file__)), bk.__file__
    torch.manual_seed(0)
    model = nn.ModuleDict({"rgb": nn.Linear(8, 4), "depth": nn.Linear(6, 4), "head": nn.Linear(8, 3)})
    branches = bk.Branches(model, {"rgb": "rgb", "depth": "depth"})
    balancer = bk.Rebalancer(branches, bk.ReGrad(), weight=0.3)
    banks = {m: bk.PrototypeBank(3, 4, decay=0.9) for m in branches}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = {"rgb": torch.randn(16, 8), "depth": torch.randn(16, 6)}, torch.randint(0, 3, (16,))
    before = [parameter.clone() for parameter in model.parameters()]
    with branches.capture() as features:
        logits = model["head"](torch.cat([model[m](x[m]) for m in branches], 1))
    for m, f in features.items():
        banks[m].update(f.detach(), y)
    losses = {m: bk.prototypical_cross_entropy(f, y, banks[m].prototypes) for m, f in features.items()}
    confidence = {m: bk.dropout_confidence(f) for m, f in features.items()}
    loss = balancer(F.cross_entropy(logits, y), losses, confidence=confidence)
    loss.backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def main() -> None:
    """Check the wheel, then use what is installed."""
    contents(sys.argv[1])
    step()
    installed = {dist.metadata["Name"].lower() for dist in distributions()}
    unwanted = installed & {"matplotlib", "jaxtyping", "beartype", "pytest", "scipy", "pandas", "lightning"}
    assert not unwanted, unwanted
    print(f"wheel: {Path(sys.argv[1]).name}, one ReGrad step with {len(installed)} packages installed")


if __name__ == "__main__":
    main()
