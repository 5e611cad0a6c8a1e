"""The architecture of a deployed model, by where it comes from: ``timm:resnet18``, ``smp:Unet/resnet34``, ...

No weights are ever fetched: libraries that offer pretrained ones are told not to. Each is imported when it is named.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..arguments import checked
from ..errors import check_choice, check_path_exists
from ..seeding import isolated

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Normalization:
    """How pixels in [0, 1] are normalised before they reach a model.

    Attributes:
        mean: One number a channel, or one for all.
        std: As many.
        source: Who says so, in words.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Network:
    """An architecture that was built, with what its library says of it.

    Attributes:
        model: The module, with fresh weights (a Hugging Face folder's: its own), in training mode as it came.
        source: The text it was named by.
        options: The options it was built with.
        normalization: What the library's own configuration says of pixels; None where it says nothing.
    """

    model: nn.Module
    source: str
    options: Mapping[str, Any]
    normalization: Normalization | None = None


@checked
def build_network(
    source: str,
    options: Mapping[str, Any] | None = None,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
) -> Network:
    """Build the architecture that ``source`` names.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``smp:ARCH`` or ``smp:ARCH/ENCODER``, ``monai:NAME``, ``hf:FOLDER``
            (a local folder of transformers, with its weights), ``kit:NAME`` (a reference network of this toolkit), or
            ``MODULE:FUNCTION`` of your own, looked for in the working directory too.
        options: Options of its builder.
        num_classes: Outputs of the head, passed on under the library's name for it unless ``options`` say it.
        channels: Channels of the input, likewise.

    Raises:
        ValueError: On a text of another form, an unknown name (naming the nearest) or options the builder refuses.
        TypeError: When a function of your own returns no module.
        ImportError: When the library is not installed, or a module of your own cannot be imported.
        FileNotFoundError: When a Hugging Face folder is not there.
    """
    origin, colon, name = source.partition(":")
    if not colon or not origin or not name:
        raise ValueError(
            f"expected the model's source to be LIBRARY:NAME with one of {[*LIBRARIES]}, or MODULE:FUNCTION of your "
            f"own, but got {source!r}"
        )
    given = dict(options or {})
    wanted = {"num_classes": num_classes, "channels": channels}
    with isolated(0):  # fresh weights are drawn, and some libraries draw numbers when they are imported
        if origin not in LIBRARIES:
            model, said = _own(origin, name, given, wanted)
        else:
            model, said = LIBRARIES[origin](name, given, wanted)
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected {source!r} to return a torch.nn.Module, but got {type(model).__name__}")
    return Network(model, source, given, said)


Built = tuple[Any, Normalization | None]


def _timm(name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    timm = _library("timm", "timm")
    check_choice("model of timm", name.partition(".")[0], timm.list_models())
    _fill(options, num_classes=wanted["num_classes"], in_chans=wanted["channels"])
    with _refusals(f"timm:{name}"):
        model = timm.create_model(name, pretrained=False, **options)
    said = getattr(model, "pretrained_cfg", None) or {}
    return model, _normalization(said.get("mean"), said.get("std"), f"timm's configuration of {name}")


def _torchvision(name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    models = _library("torchvision.models", "torchvision")
    check_choice("model of torchvision", name, models.list_models())
    if wanted["channels"] not in (None, 3):
        raise ValueError(f"expected images of 3 channels for torchvision:{name}, but got {wanted['channels']}")
    _fill(options, num_classes=wanted["num_classes"])
    # A backbone's weights would be downloaded by default.
    accepted = inspect.signature(models.get_model_builder(name)).parameters
    nothing = {key: None for key in ("weights", "weights_backbone") if key in accepted}
    with _refusals(f"torchvision:{name}"):
        return models.get_model(name, **nothing, **options), None


def _smp(name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    smp = _library("segmentation_models_pytorch", "segmentation-models-pytorch")
    architecture, _, encoder = name.partition("/")
    classes = wanted["num_classes"]
    # Of two classes these networks give one logit a pixel, unless they are told otherwise.
    _fill(options, classes=1 if classes == 2 else classes, in_channels=wanted["channels"])
    if encoder:
        if not encoder.startswith("tu-"):  # any of timm's
            check_choice("encoder of smp", encoder, smp.encoders.get_encoder_names())
        options.setdefault("encoder_name", encoder)
    with _refusals(f"smp:{name}"):
        return smp.create_model(architecture, encoder_weights=None, **options), None


def _monai(name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    nets = _library("monai.networks.nets", "monai")
    known = [key for key, value in vars(nets).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
    builder = getattr(nets, check_choice("network of monai", name, known))
    accepted = inspect.signature(builder).parameters
    named = {"out_channels": wanted["num_classes"], "num_classes": wanted["num_classes"]}
    named |= {"in_channels": wanted["channels"]}
    _fill(options, **{key: value for key, value in named.items() if key in accepted})
    with _refusals(f"monai:{name}"):
        return builder(**options), None


def _hugging_face(name: str, options: dict[str, Any], _: Mapping[str, int | None]) -> Built:
    transformers = _library("transformers", "transformers")
    folder = check_path_exists("the folder of hf:", name)
    with _refusals(f"hf:{name}"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        known = [key for key in config.architectures or () if hasattr(transformers, key)]
        if not known:
            raise ValueError(
                f"expected {str(folder / 'config.json')!r} to name its architecture, but got {config.architectures!r}"
            )
        model = getattr(transformers, known[0]).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **options
        )
    return model, _preprocessing(folder)


def _kit(name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    from ..models import MODELS, build

    check_choice("model of kit", name, MODELS)
    _fill(options, num_classes=wanted["num_classes"], channels=wanted["channels"])
    with _refusals(f"kit:{name}"):
        return build(name, **options), None


def _own(module: str, name: str, options: dict[str, Any], wanted: Mapping[str, int | None]) -> Built:
    # As `python -m` does: a newcomer's net.py lies where the command is run.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"expected the model's source to be LIBRARY:NAME with one of {[*LIBRARIES]}, or MODULE:FUNCTION of your "
            f"own, but module {module!r} cannot be imported: {error}"
        ) from error
    build = getattr(found, name, None)
    if not callable(build):
        raise ValueError(f"expected module {module!r} to have a function {name!r}, but it has none")
    with suppress(ValueError):  # of some compiled functions nothing is known
        accepted = inspect.signature(build).parameters
        _fill(options, **{key: value for key, value in wanted.items() if key in accepted})
    with _refusals(f"{module}:{name}"):
        return build(**options), None


LIBRARIES: dict[str, Callable[[str, dict[str, Any], Mapping[str, int | None]], Built]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "smp": _smp,
    "monai": _monai,
    "hf": _hugging_face,
    "kit": _kit,
}


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this model needs {package}: pip install {package}") from error


def _fill(options: dict[str, Any], **values: Any) -> None:
    for name, value in values.items():
        if value is not None:
            options.setdefault(name, value)


@contextmanager
def _refusals(source: str) -> Iterator[None]:
    """Name the model in what its builder raises."""
    try:
        yield
    except (TypeError, ValueError, KeyError, OSError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"expected options that {source} takes, but it says: {type(error).__name__}: {error}"
        ) from error


def _normalization(mean: Any, std: Any, source: str) -> Normalization | None:
    if mean is None or std is None:
        return None
    return Normalization(tuple(float(v) for v in mean), tuple(float(v) for v in std), source)


def _preprocessing(folder: Path) -> Normalization | None:
    """Return what the preprocessor of a Hugging Face folder does to pixels in [0, 1]."""
    import json

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"expected {str(path)!r} to be JSON, but got: {error}") from error
    if not said.get("do_normalize", True):
        return None
    return _normalization(said.get("image_mean"), said.get("image_std"), f"{path.name} of the folder")
