"""A wrapper whose wrapped module keeps its state-dict keys."""

from typing import Any

from torch import nn

from balancekit._checks import expect


def keep_keys(wrapper: nn.Module, child: str) -> None:
    """Let the module registered as `child` save and load under the wrapper's own prefix.

    Without it, wrapping ``mlp`` turns ``mlp.fc.weight`` into ``mlp.base.fc.weight``, and no checkpoint of the
    unwrapped model loads any more. Both hooks are plain functions, so they survive ``deepcopy`` and pickling. Call it
    when all children are registered.

    Raises:
        ValueError: if a key of the child would collide with a name of the wrapper's own.
    """
    names = {name for name, _ in wrapper.named_children() if name != child} | {*wrapper._parameters, *wrapper._buffers}
    taken = sorted(names & {key.split(".")[0] for key in wrapper.get_submodule(child).state_dict()})
    expect(not taken, child, "a module without entries that the wrapper itself needs", taken)
    wrapper._wrapped_child = child  # type: ignore[assignment]
    wrapper.register_state_dict_post_hook(_without_child)
    wrapper.register_load_state_dict_pre_hook(_with_child)


def _without_child(wrapper: Any, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    long = f"{prefix}{wrapper._wrapped_child}."
    _rename(state, {key: prefix + key.removeprefix(long) for key in state if key.startswith(long)})


def _with_child(wrapper: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    child: str = wrapper._wrapped_child
    siblings = tuple(f"{prefix}{name}." for name, _ in wrapper.named_children() if name != child)
    own = {prefix + name for name in [*wrapper._parameters, *wrapper._buffers]}
    inside = [key for key in state if key.startswith(prefix) and not key.startswith(siblings) and key not in own]
    _rename(state, {key: f"{prefix}{child}.{key.removeprefix(prefix)}" for key in inside})


def _rename(state: dict[str, Any], names: dict[str, str]) -> None:
    """All at once: the new name of one entry may be the old name of another."""
    state.update({new: state.pop(old) for old, new in names.items()})
