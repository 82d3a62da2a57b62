"""One ReGrad step where only the library and its three dependencies are installed, and a look at what is handed out.

Run as a script: ``python tests/bare_wheel.py dist/balancekit-….whl``, or with the source distribution instead.
"""

import importlib
import pkgutil
import sys
import tarfile
import zipfile
from importlib.metadata import distributions, version
from pathlib import Path


def contents(path: Path) -> None:
    """The library with its type marker and licence, and no tests, examples or benchmarks."""
    if path.suffix == ".whl":
        names, beside = zipfile.ZipFile(path).namelist(), ()
    else:
        with tarfile.open(path) as archive:
            names = [name.partition("/")[2] for name in archive.getnames()]
        beside = (".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml")
    assert {"balancekit/py.typed", *beside} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    strangers = [name for name in names if not name.startswith(("balancekit/", "balancekit-")) and name not in beside]
    assert not strangers, strangers


def imports() -> None:
    """Every module but the one that draws."""
    import balancekit

    assert "site-packages" in str(Path(balancekit.__file__)), balancekit.__file__
    for module in pkgutil.walk_packages(balancekit.__path__, "balancekit."):
        if module.name != "balancekit.plotting":
            importlib.import_module(module.name)


def step() -> None:
    """Journey (i) on random data."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    import balancekit as bk

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
    """Check the file, then use what is installed."""
    path = Path(sys.argv[1])
    contents(path)
    imports()
    step()
    installed = {dist.metadata["Name"].lower() for dist in distributions()}
    unwanted = installed & {"matplotlib", "jaxtyping", "beartype", "pytest", "scipy", "pandas", "lightning"}
    assert not unwanted, unwanted
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "einops", "numpy"))
    print(f"{path.name} with {versions}: one ReGrad step, {len(installed)} packages installed")


if __name__ == "__main__":
    main()
