"""Which part of a network is its head: declared, known by its library's convention, or found by a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import checked
from .errors import check_choice, check_count
from .logits import giving_logits

# What each library calls the heads of its networks, the likeliest first. Of one that is a stack of layers, what gives
# the logits is its last layer with parameters; those of WHOLE are one layer and what brings it to the image's size.
CONVENTIONS = {
    "segmentation_models_pytorch": ("segmentation_head",),
    "torchvision": ("fc", "classifier", "heads", "head"),
    "transformers": ("classifier", "decode_head", "head"),
}
WHOLE = ("segmentation_head", "decode_head")


@checked
def declare_head(model: nn.Module, head: str) -> nn.Module:
    """Declare the submodule ``head`` (a dotted name) as the model's head; everything else is its body.

    Composition, layer-freezing and restoration need to know which is which. Most heads are found without: see
    :func:`head_name`.

    Returns:
        ``model``.

    Raises:
        ValueError: When ``model`` has no such submodule.
    """
    names = [name for name, _ in model.named_modules() if name]
    if head not in names:
        raise ValueError(f"expected head to be a submodule of {type(model).__name__}, one of {names}, but got {head!r}")
    vars(model)["unlearn_kit_head"] = head
    return model


@checked
def head_name(model: nn.Module, inputs: Tensor | None = None) -> str:
    """Return the dotted name of the head.

    That is the declared one; or else, of a network of timm, torchvision, transformers or segmentation-models-pytorch,
    what its library holds for it; of an ``nn.Sequential`` the last layer with parameters, where nothing after it
    changes its output; of any other, given ``inputs``, the last module with parameters whose output is the network's.

    Args:
        model: Any network, looked at through wrappers.
        inputs: A batch ``(B, ...)`` to run a network of one's own on, in eval mode.

    Raises:
        ValueError: When none is declared or found, saying how to declare it.
    """
    for prefix, module in model.named_modules():
        # Not getattr: a wrapper that forwards attributes would claim the head of the model inside.
        head = vars(module).get("unlearn_kit_head")
        if head is not None:
            return _join(prefix, str(head))
    prefix, inner = inside_wrappers(model)
    found = _by_convention(inner) or _last_of_sequence(inner)
    if found:
        return _join(prefix, found)
    probed = "" if inputs is None else _by_probe(model, inputs)
    if probed:
        return probed
    raise ValueError(
        f"{type(model).__name__} does not declare which submodule is its head; "
        "call unlearn_kit.models.declare_head(model, 'name') once"
    )


@checked
def head_parameters(model: nn.Module) -> list[str]:
    """Return names of the parameters of the declared head."""
    head = head_name(model)
    return [name for name, _ in model.named_parameters() if name.startswith(head + ".")]


def last_blocks(model: nn.Module, k: int) -> list[str]:
    """Return the names of the last ``k`` modules that own parameters (or all), and after them the head's.

    Modules come in the order in which the network registers them, a convolution and its batch norm as two. The head is
    the declared one, or else the last such module. What the network itself owns belongs to no module.

    Raises:
        TypeError: When ``k`` is no int of at least 0, and when there is no such module.
        ValueError: When ``k`` is no int of at least 0, and when there is no such module.
    """
    check_count("k", k, low=0)
    owners = [name for name in dict.fromkeys(key.rpartition(".")[0] for key, _ in model.named_parameters()) if name]
    if not owners:
        raise ValueError(f"expected {type(model).__name__} to have modules that own parameters, but got none")
    try:
        head = head_name(model)
    except ValueError:
        head = owners[-1]
    body = [name for name in owners if not f"{name}.".startswith(f"{head}.")]
    return [*body[max(0, len(body) - k) :], head]


def parameters_under(model: nn.Module, modules: Sequence[str], name: str = "modules") -> list[str]:
    """Return names of the parameters of the submodules ``modules`` (dotted names), in the model's order.

    Errors call the modules ``name``.

    Raises:
        TypeError: On a string in place of names.
        ValueError: On a name the model does not have, and when there is no parameter.
    """
    if isinstance(modules, str):
        raise TypeError(f"expected {name} to be a sequence of names of submodules, but got the string {modules!r}")
    known = [inside for inside, _ in model.named_modules() if inside]
    for module in modules:
        check_choice(f"every one of {name}", module, known)
    found = [key for key, _ in model.named_parameters() if any(key.startswith(f"{module}.") for module in modules)]
    if not found:
        raise ValueError(f"expected {name} to be submodules that own parameters, but got {list(modules)}")
    return found


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _owns_parameters(module: nn.Module | None) -> bool:
    return module is not None and next(module.parameters(), None) is not None


def inside_wrappers(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the network inside adapters and a layer that normalises, and its name in ``model``."""
    prefix, inner = "", model
    while True:
        if hasattr(inner, "peft_config") and hasattr(inner, "base_model"):
            step = "base_model.model"
        elif {name for name, _ in inner.named_children()} == {"normalize", "network"}:
            step = "network"
        else:
            return prefix, inner
        prefix, inner = _join(prefix, step), inner.get_submodule(step)


def _by_convention(model: nn.Module) -> str:
    """Return the head that the library of ``model`` holds for one; the empty string where it has none."""
    library = type(model).__module__.partition(".")[0]
    if library == "timm":
        settings: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
        held = settings.get("classifier")
        names = [held] if isinstance(held, str) else list(held or ())[:1]
    else:
        names = [name for name in CONVENTIONS.get(library, ()) if hasattr(model, name)]
    modules = dict(model.named_modules())
    for name in names:
        if _owns_parameters(modules.get(name)):
            return name if name in WHOLE else _join(name, _last_of_sequence(modules[name]))
    return ""


def _last_of_sequence(module: nn.Module) -> str:
    """Return the last layer with parameters of a sequence whose output it is; the empty string where that is no one."""
    if not isinstance(module, nn.Sequential):
        return ""
    for name, child in reversed(list(module.named_children())):
        if isinstance(child, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            return name
        if isinstance(child, nn.Sequential):
            inner = _last_of_sequence(child)
            return _join(name, inner) if inner else ""
        if not isinstance(child, (nn.Flatten, nn.Identity, nn.Unflatten)):
            break
    return ""


@torch.no_grad()
def _by_probe(model: nn.Module, inputs: Tensor) -> str:
    """Return the last and innermost module with parameters whose output is the network's; the empty string for none."""
    outputs: dict[str, Any] = {}

    def hold(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    modes = [module for module in model.modules() if module.training]
    hooks = [m.register_forward_hook(hold(name)) for name, m in model.named_modules() if name and _owns_parameters(m)]
    try:
        with giving_logits(model):
            logits = model.eval()(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module in modes:
            module.training = True
    found = [name for name, output in outputs.items() if isinstance(output, Tensor) and _same(output, logits)]
    # A module ends after those inside it: the first of the last family is the innermost.
    innermost = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    return innermost[-1] if innermost else ""


def _same(output: Tensor, logits: Tensor) -> bool:
    """Return whether both are views of the same numbers, or half-precision ones and what was made of them."""
    if output.dtype != logits.dtype:
        return output.numel() == logits.numel() and torch.equal(output.flatten().to(logits.dtype), logits.flatten())
    return output.data_ptr() == logits.data_ptr() and output.numel() == logits.numel()
