"""What a revision of a deployed model may say, in YAML or as options of the command. Refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from unlearn_kit import data
from unlearn_kit.data import DataBundle, where
from unlearn_kit.data.volume_folder import holds_volumes
from unlearn_kit.errors import check_choice
from unlearn_kit.evidence.measure import ALL_AUDITS
from unlearn_kit.safe_yaml import read_yaml

from ..setup.devices import check_device_name
from ..setup.methods import Method, Variant
from ..suites.mistakes import error_lines
from ..suites.schema import Count, Finite, Strict
from .reference import read_reference


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


def _root(value: Any) -> Any:
    return {"root": value} if isinstance(value, (str, Path)) else value


def _numbers(value: Any) -> Any:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class ModelRequest(Strict):
    """The model as it serves.

    Attributes:
        source: The architecture, as ``LIBRARY:NAME`` or ``MODULE:FUNCTION``.
        weights: The file of its weights; None for ``hf:FOLDER``.
        options: Of the architecture.
        key: Where a training checkpoint keeps the weights, when it cannot be found by itself.
        mean: What pixels in [0, 1] are normalised by, one number a channel or one for all.
        std: Likewise.
        normalize: False where the model takes pixels in [0, 1] as they are.
    """

    source: str
    weights: Path | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    mean: Annotated[list[Finite], BeforeValidator(_numbers)] | None = None
    std: Annotated[list[Finite], BeforeValidator(_numbers)] | None = None
    normalize: bool = True


class DataRequest(Strict):
    """The folder, as for the loaders ``image-folder`` and ``volume-folder``; what is None is left to the loader.

    The table tells which of them it is. ``window`` and ``classes`` are for volumes, ``channels`` for images.
    """

    root: Path
    metadata: str | None = None
    size: Annotated[list[Count], Field(min_length=2, max_length=3)] | None = None
    window: Annotated[list[Finite], Field(min_length=2, max_length=2)] | Literal["each"] | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    channels: Count | None = None
    file_column: str | None = None
    label_column: str | None = None
    mask_column: str | None = None
    label_separator: str | None = None
    finding_columns: list[str] | None = None
    blank: Literal["unknown", "absent"] | None = None
    split_column: str | None = None
    held_out: Annotated[Finite, Field(gt=0, lt=1)] | None = None
    group: str | None = None
    encoding: str | None = None
    separator: str | None = None

    def load(self) -> DataBundle:
        """Read the folder.

        Raises:
            ValueError: On what its loader refuses, and on options of the other loader.
            DataNotFoundError: When there are no data.
        """
        given = self.model_dump(exclude={"root"}, exclude_none=True)
        volumes = holds_volumes(self.root, self.metadata, self.file_column or "file")
        return data.load("volume-folder" if volumes else "image-folder", root=self.root, **given)


class RevisionRequest(Strict):
    """One revision of a deployed model.

    Attributes:
        model: The model as it serves.
        data: The folder of its data.
        forget: Which rows of the table, as ``device == "B" and year < 2019``.
        forget_class: A whole class instead, by its name.
        method: ``NAME:PRESET`` or ``NAME:OPTION=VALUE``, or a name with its options.
        reference: A file of weights of the same architecture, retrained without the data; "retrain" or
            "subsample:SHARE" trains, with options of ``retrain`` after colons; "none".
        out: The folder to write.
        form: "safetensors" or "pth"; None for the original's.
        seed: Of the revision and the evaluation.
        device: Where the method runs.
        asked: Who asked, ticket, basis, date: free text for the receipt.
        audits: Of ``unlearn_kit.evidence.measure``; None for its own.
        budget: Seconds after which no further audit is begun.
        patient: The column whose groups are whole people, devices, ...: intervals count groups, not images.
        earlier: Folders of earlier revisions that this one stands on.
    """

    model: Annotated[ModelRequest, BeforeValidator(_source)]
    data: Annotated[DataRequest, BeforeValidator(_root)]
    forget: str | None = None
    forget_class: str | None = None
    method: str | dict[str, Any] = "perturbed_sign"
    reference: str | None = None
    out: Path
    form: Literal["safetensors", "pth"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"
    asked: dict[str, str] = Field(default_factory=dict)
    audits: list[str] | None = None
    budget: Annotated[Finite, Field(ge=0)] | None = None
    patient: str | None = None
    earlier: list[Path] = Field(default_factory=list)

    @field_validator("audits")
    @classmethod
    def _known_audits(cls, value: list[str] | None) -> list[str] | None:
        for name in value or []:
            check_choice("audits", name, ALL_AUDITS)
        return value

    @field_validator("forget")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            where(value)
        return value

    @field_validator("reference")
    @classmethod
    def _known_reference(cls, value: str | None) -> str | None:
        read_reference(value)
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        return check_device_name(value)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.forget is None) == (self.forget_class is None):
            came = "neither" if self.forget is None else "both"
            raise ValueError(f"expected one of forget and forget_class, but got {came}")
        self.chosen()
        return self

    def chosen(self) -> Method | Variant:
        """Return the method with its options.

        Raises:
            ValueError: On an unknown one, or options it does not take.
        """
        if isinstance(self.method, str):
            return Method(self.method)
        given = dict(self.method)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"expected method to have a name, but got {self.method!r}")
        return Variant(name, given)


def read_request(path: str | Path | None, options: Mapping[str, Any]) -> RevisionRequest:
    """Return the request of a file, with the ``options`` of the command line in the place of what it says.

    Args:
        path: A YAML file; None where the options say all. Its paths are as seen from where the command runs.
        options: Values by dotted key, such as ``model.weights``; None stands for what was not given.

    Raises:
        ValueError: On a mistake, naming the file, the key, what was expected and what came.
        FileNotFoundError: When there is no such file.
    """
    source = "options" if path is None else str(path)
    values = {} if path is None else read_yaml(path, "request")
    if not isinstance(values, Mapping):
        raise ValueError(f"{source}: expected a mapping, with keys such as model, but got {type(values).__name__}")
    whole: dict[str, Any] = dict(values)
    for place, short in (("model", _source), ("data", _root)):
        inside = short(whole.get(place, {}))
        given = {
            key.partition(".")[2]: value
            for key, value in options.items()
            if key.startswith(f"{place}.") and value is not None
        }
        if given and isinstance(inside, Mapping):
            whole[place] = {**inside, **given}
    own = {key: value for key, value in options.items() if "." not in key and value is not None}
    if {"forget", "forget_class"} & own.keys():  # one way of saying what to forget replaces the other
        whole = {key: value for key, value in whole.items() if key not in ("forget", "forget_class")}
    if "asked" in own and isinstance(whole.get("asked"), Mapping):
        own["asked"] = {**whole["asked"], **own["asked"]}
    whole |= own
    try:
        return RevisionRequest.model_validate(whole)
    except ValidationError as error:
        raise ValueError(error_lines(source, error)) from None
