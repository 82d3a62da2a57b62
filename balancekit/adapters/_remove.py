"""The way back: a model as it was before anything was put into it."""

from torch import nn

from balancekit._checks import expect
from balancekit.adapters._transparent import Transparent


def remove(model: nn.Module) -> nn.Module:
    """Take every :class:`Parallel` and :class:`Tap` out of `model`, in place.

    The wrapped modules themselves go back where they were, and no hook of ours is left. What a training run froze stays
    frozen.

    Returns:
        The model; if it was itself wrapped, what the wrapper held.

    Example:
        >>> from balancekit.adapters import Parallel
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        >>> first = model[0]
        >>> model[0] = Parallel(first, nn.Linear(4, 4))
        >>> remove(model)[0] is first
        True
    """
    expect(isinstance(model, nn.Module), "model", "a torch.nn.Module", model, error=TypeError)
    model = _bare(model)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _bare(child)
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, Transparent):  # one beside the module, or that somebody took out by hand
                owner._unwrapped()
    return model


def _bare(module: nn.Module) -> nn.Module:
    while isinstance(module, Transparent):
        module = module._unwrapped()
    return module
