"""Gradients of each sample by itself, sums of them over a data set, and Hessian-vector products, on ``torch.func``.

Everything here is taken in eval mode: with batch statistics no sample has a loss of its own. Only parameters that
require a gradient take part; results are dicts by parameter name. Data come as batches ``(inputs, targets)``, read once
and moved to the model's device. A loss is called with logits ``(B, C, ...)`` and targets ``(B, ...)`` and returns
``(B,)``; of a multi-label head with logits ``(B, 1, K)`` and targets ``(B, K)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import check_count
from .logits import giving_logits
from .modules import around_same_tensors, device_of, evaluating
from .outputs import check_finite, decisions, label_loss, per_sample
from .seeding import standardized

Named = dict[str, Tensor]
SampleLoss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]

MEMORY = 2**28  # bytes


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention by plain matrix products; the caller's choice of kernels returns on leaving.

    The fused kernels have no second derivative, and no rule for the gradients of single samples.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return cross-entropy in nats ``(B,)`` of labels ``(B,)`` or masks ``(B, ..., H, W)`` (the mean over pixels)."""
    return per_sample(label_loss(logits, targets), targets)


def trainable(model: nn.Module) -> Named:
    """Return the parameters of ``model`` that require a gradient, detached.

    Raises:
        ValueError: When there are none, or one is complex.
    """
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError(f"expected {type(model).__name__} to have trainable parameters, but got none")
    for name, parameter in found.items():
        if parameter.is_complex():
            raise ValueError(f"expected model to have real parameters, but got {name!r} of {parameter.dtype}")
    return found


def chunk_size(model: nn.Module, memory: int = MEMORY) -> int:
    """Return how many samples' gradients, and one tensor made of each, fit in ``memory`` bytes: 1 to 64.

    Beyond 64 nothing gets faster on a CPU, while the activations, which are not counted, go on growing.
    """
    size = sum(p.numel() * p.element_size() for p in trainable(model).values())
    return max(1, min(64, check_count("memory", memory) // (2 * size)))


@standardized
def per_sample_gradients(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, loss: SampleLoss = cross_entropy, memory: int = MEMORY
) -> Named:
    """Return the gradient of each sample's own loss: ``(B, *shape)`` for a parameter of ``shape``.

    Args:
        model: A module that returns logits ``(B, C, ...)``; its modes stay as they are.
        inputs: ``(B, ...)``, on the model's device.
        targets: ``(B, ...)``, on the model's device.
        loss: Returns one value a sample.
        memory: Bytes that the work may take beside the result; it sets how many samples are done at once.

    Raises:
        ValueError: When the model has no trainable parameters.
    """
    model = around_same_tensors(model)
    with giving_logits(model), evaluating(model):
        return _vectorized(model, loss, chunk_size(model, memory))(trainable(model), inputs, targets)


def mean_gradients(model: nn.Module, batches: Batches, *, loss: SampleLoss = cross_entropy) -> Named:
    """Return the gradient of the mean loss over all samples of ``batches``.

    Raises:
        ValueError: When there is no sample, or a gradient is not finite.
    """
    model = around_same_tensors(model)

    def total(parameters: Named, x: Tensor, y: Tensor) -> Tensor:
        return loss(decisions(functional_call(model, parameters, (x,)), y), y).sum()

    return _mean(model, batches, _or(grad(total), _by_autograd(total)), None)


def mean_squared_gradients(
    model: nn.Module, batches: Batches, *, loss: SampleLoss = cross_entropy, memory: int = MEMORY
) -> Named:
    """Return the mean over samples of each one's own squared gradient: the diagonal empirical Fisher.

    Squares of batch-mean gradients would shrink with the batch size and mean something else.

    Raises:
        ValueError: When there is no sample, or a gradient is not finite.
    """
    return _mean_of(torch.square, model, batches, loss, memory)


def mean_absolute_gradients(
    model: nn.Module, batches: Batches, *, loss: SampleLoss = cross_entropy, memory: int = MEMORY
) -> Named:
    """Return the mean over samples of the absolute gradient of each sample's own loss.

    Raises:
        ValueError: When there is no sample, or a gradient is not finite.
    """
    return _mean_of(torch.abs, model, batches, loss, memory)


def hessian_vector_product(
    model: nn.Module, batches: Batches, vector: Named, *, loss: SampleLoss = cross_entropy
) -> Named:
    """Return ``H v`` for the Hessian H of the mean loss over all samples of ``batches``.

    Args:
        model: A module that returns logits ``(B, C, ...)``.
        batches: Read once; give a list to call this again.
        vector: One tensor of its shape for each trainable parameter.
        loss: Returns one value a sample.

    Raises:
        ValueError: When the vector has other names or shapes, there is no sample, a product is not finite, or torch has
            no second derivative of an operation, by its name.
    """
    wanted = {name: p.shape for name, p in trainable(model).items()}
    came = {name: v.shape for name, v in vector.items()}
    if came != wanted:
        raise ValueError(
            f"expected vector to hold a tensor for each trainable parameter, {_shapes(wanted)}, but got {_shapes(came)}"
        )

    model = around_same_tensors(model)

    def product(parameters: Named, x: Tensor, y: Tensor) -> Named:
        def total(weights: Named) -> Tensor:
            return loss(decisions(functional_call(model, weights, (x,)), y), y).sum()

        # vjp is jvp, H being symmetric; it costs the same, knows more operations, and torch's forward mode still
        # compiles with the deprecated torch.jit.
        with plain_attention():
            pulled: Named = vjp(grad(total), parameters)[1]({name: vector[name] for name in parameters})[0]
        return pulled

    try:
        return _mean(model, batches, product, None)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"expected a model whose operations have second derivatives, but got: {reason}") from error


def _mean_of(
    function: Callable[[Tensor], Tensor], model: nn.Module, batches: Batches, loss: SampleLoss, memory: int
) -> Named:
    model, chunk = around_same_tensors(model), chunk_size(model, memory)
    gradients = _vectorized(model, loss, chunk)

    def sums(parameters: Named, x: Tensor, y: Tensor) -> Named:
        return {name: function(g).sum(0) for name, g in gradients(parameters, x, y).items()}

    return _mean(model, batches, sums, chunk)


def _vectorized(model: nn.Module, loss: SampleLoss, chunk: int) -> Callable[[Named, Tensor, Tensor], Named]:
    def own(parameters: Named, x: Tensor, y: Tensor) -> Tensor:
        one = y.unsqueeze(0)
        return loss(decisions(functional_call(model, parameters, (x.unsqueeze(0),)), one), one)[0]

    # "different": a layer that draws random numbers even in eval mode draws them for each sample.
    mapped = vmap(grad(own), in_dims=(None, 0, 0), chunk_size=chunk, randomness="different")

    alone = _by_autograd(own)

    def looped(parameters: Named, x: Tensor, y: Tensor) -> Named:
        each = [alone(parameters, *sample) for sample in zip(x, y, strict=True)]
        return {name: torch.stack([found[name] for found in each]) for name in parameters}

    either = _or(mapped, looped)

    def gradients(parameters: Named, x: Tensor, y: Tensor) -> Named:
        with plain_attention():
            return either(parameters, x, y)

    return gradients


def _by_autograd(function: Callable[..., Tensor]) -> Callable[..., Named]:
    """Return the gradient of ``function`` by its first argument, without ``torch.func``."""

    def gradient(parameters: Named, x: Tensor, y: Tensor) -> Named:
        weights = {name: p.detach().requires_grad_(True) for name, p in parameters.items()}
        with torch.enable_grad():
            value = function(weights, x, y)
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(weights, found, strict=True))

    return gradient


def _or(first: Callable[..., Named], second: Callable[..., Named]) -> Callable[..., Named]:
    """Return ``first``, which is faster, or from its first failure on ``second``.

    ``torch.func`` takes no module that writes into a buffer, recomputes activations, or has backward hooks, and
    ``vmap`` no GRU.
    """
    failed = False

    def either(*arguments: object) -> Named:
        nonlocal failed
        if not failed:
            try:
                return first(*arguments)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                failed = True
        try:
            return second(*arguments)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"expected a model that has gradients of its samples, but got: {reason}") from error

    return either


@standardized
def _mean(
    model: nn.Module, batches: Batches, sums: Callable[[Named, Tensor, Tensor], Named], chunk: int | None
) -> Named:
    """Add up ``sums`` over all batches, ``chunk`` samples at a time, and divide by the number of samples."""
    parameters, device, count = trainable(model), device_of(model), 0
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with giving_logits(model), evaluating(model):
        for batch, labels in batches:
            size = chunk or max(1, len(batch))
            pieces = zip(batch.split(size), labels.split(size), strict=True)
            for x, y in pieces:
                for name, value in sums(parameters, x.to(device), y.to(device)).items():
                    totals[name] += value.detach()  # Some formulas of torch leave a graph.
                count += len(x)
    if count == 0:
        raise ValueError("expected batches to hold at least one sample, but got none")
    for name, value in totals.items():
        check_finite(f"the gradient of {name!r}", value.div_(count))
    return totals


def _shapes(shapes: dict[str, torch.Size]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}
