"""Bundle description `model.json`, names of bundle folders, and size-limited readers of JSON and .npz files."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import IO, Annotated, Any, Literal, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lim_keras import __version__
from lim_keras.bundle.object_rule import FittedRule, Part, Scores
from lim_keras.errors import BundleError
from lim_keras.files import DAMAGED_ARRAYS, write_text
from lim_keras.ownership import file_hash


def read_json(path: Path, limit: int) -> tuple[str, Any]:
    """Read a JSON file of at most `limit` bytes; return its text and its value.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: not a plain file, a link to a file outside its folder, too large, or not JSON (which has no NaN).
    """
    if not path.exists():
        raise FileNotFoundError(path)
    if not path.is_file():
        raise BundleError(f"{path}: expected a plain file. Received: a folder, a pipe or a device.")
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise BundleError(f"{path}: a link that leaves the bundle, to {path.resolve()}. Copy the file itself.")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise BundleError(f"{path}: expected at most {limit} bytes. Received: {path.stat().st_size} bytes.")
        text = content.decode("utf-8")
        return text, json.loads(text, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: damaged, expected a JSON object ({error}). Export the bundle again.") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def read_arrays(path: Path, names: Sequence[str], limit: int) -> list[NDArray[Any]]:
    """Read the arrays `names` of an .npz file, in this order; all its arrays may unpack to at most `limit` bytes.

    Raises:
        BundleError: the file is missing, damaged or too large, or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > limit:
                raise ValueError(f"at most {limit} bytes of arrays, received {size}")
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    _check_header(member, archive.getinfo(f"{name}.npy").file_size)
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (*DAMAGED_ARRAYS, TypeError) as error:
        raise BundleError(
            f"{path}: damaged, expected an archive of the arrays {' and '.join(names)} ({error}). "
            "Export the bundle again."
        ) from error


def _check_header(member: IO[bytes], size: int) -> None:
    """Refuse a header that declares more bytes than the file holds, because NumPy allocates them before it reads."""
    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array of shape {shape} and type {dtype} in {size} bytes")


FORMAT = 1

INFO_FILE, STAC_FILE = "model.json", "stac-item.json"

ENSEMBLE, VERSION = "ensemble", "1"
"""Folder of the ensemble, and version folder inside each model folder, which TensorFlow Serving requires."""

INFO_BYTES = 64 * 2**20  # largest model.json that is read; one million tile ids take about half

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_PIXELS = 2**20  # largest halo and stride that is accepted


def _inside(path: str) -> str:
    """Return a relative path; raise ValueError if it could leave its folder on any operating system."""
    parts = path.split("/")
    if "\\" in path or "\0" in path or PureWindowsPath(path).anchor or {"", ".", ".."} & set(parts):
        raise ValueError(f"{path!r} leaves the bundle or is no plain path inside it")
    return path


def fold_name(fold: int) -> str:
    """Return the folder name of a fold, counted from 0."""
    return f"fold_{fold}"


def model_folders(folds: int) -> list[str]:
    """List the SavedModel folders of a bundle; the model used for prediction comes first."""
    names = [fold_name(fold) for fold in range(folds)]
    return [f"{name}/{VERSION}" for name in ([ENSEMBLE, *names] if folds > 1 else names)]


def is_bundle_name(name: str) -> bool:
    """Return whether a folder name is a valid bundle name."""
    return re.match(_NAME, name) is not None


class BandStatistics(Part):
    """Statistics of one band over the training tiles, in raw digital numbers."""

    mean: FiniteFloat
    std: FiniteFloat
    min: FiniteFloat
    max: FiniteFloat


class FileRecord(Part):
    """Size and SHA-256 of an exported file."""

    bytes: int = Field(ge=0, lt=2**63)
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Record a file."""
        return cls(bytes=path.stat().st_size, sha256=file_hash(path))


HALO_TOLERANCE = 1e-3
"""Largest difference in probability from the whole-scene prediction that a default map may have, as measured."""


class MeasuredHalo(Part):
    """Smallest halo that kept windows near the whole-scene prediction in a measurement on training imagery.

    Args:
        tolerance: difference in probability that the halo is meant for.
        halo: context around a core, pixels.
        max_difference: largest difference of any compared pixel.
        pixels: number of compared pixels.
    """

    tolerance: FiniteFloat = Field(gt=0)
    halo: int = Field(ge=0, le=_PIXELS)
    max_difference: FiniteFloat = Field(ge=0, le=1)
    pixels: int = Field(ge=1)


class FamiliarityFacts(Part):
    """Meaning of the distances that a bundle's `familiarity.tflite` computes.

    Args:
        side: side of a cell of imagery, pixels at the ground sample distance of the model.
        distances: distances of held-out cells in rising order, at equal steps of their share, from 0 to 1.
        limit: distance above which a cell is unfamiliar.
        training_cells: number of cells that the distance was fitted to.
        held_out_cells: number of cells of tiles that the network was not trained on, which set `distances` and `limit`.
    """

    side: int = Field(ge=32, le=_PIXELS)
    distances: tuple[FiniteFloat, ...] = Field(min_length=2)
    limit: FiniteFloat = Field(gt=0)
    training_cells: int = Field(ge=1)
    held_out_cells: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if any(after < before for before, after in pairwise(self.distances)):
            raise ValueError("expected `distances` in rising order")
        return self

    def familiarity(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of held-out cells that are at least as far away as each distance, 0..1."""
        shares = np.linspace(1, 0, len(self.distances))
        return np.interp(distances, self.distances, shares)


class LiteRtFigures(Part):
    """Size of a .tflite file and its comparison with the SavedModel; fields as in `lim_keras.bundle.litert`."""

    bytes: int = Field(ge=0)
    tile: int | None = Field(ge=1)
    windows: int = Field(ge=1)
    side: int = Field(ge=1)
    milliseconds_per_tile: FiniteFloat = Field(ge=0)
    landslide_f1: FiniteFloat | None
    landslide_iou: FiniteFloat | None
    saved_model_f1: FiniteFloat | None
    saved_model_iou: FiniteFloat | None
    max_difference: FiniteFloat = Field(ge=0)
    mean_difference: FiniteFloat = Field(ge=0)
    limit: str
    within: bool | None


class ModelFacts(Part):
    """Model facts that the training run supplies.

    Args:
        name: name of the bundle's folder.
        model, sampling: sections of the run's configuration.
        bands, dtype: number of bands and data type of the input images.
        gsd_m: ground sample distance of the images, metres; None: unknown.
        stride: step of the grid on which windows start, pixels (`lim_keras.models.network_stride`).
        statistics: statistics of each band over the training tiles.
        threshold: a pixel with probability >= threshold is landslide.
        temperature, bias: calibration of the logits; the exported graphs already apply it.
        metrics: scores by data set, such as {"out_of_fold": {"f1": Estimate(...)}}.
        config_hash: `RunConfig.digest` of the run.
        training_tiles, test_tiles: ids of tiles used to train at least one fold, and ids of test tiles.
        held_out: for each tile id, the fold 0..folds - 1 that was not trained on the tile. Empty in older bundles.
        started_from: name and configuration hash of the bundle that supplied the initial weights, or "".
            `training_tiles` includes the training tiles of that bundle.
        data_terms, data_link: terms of use and web page of the training data, or "".
        object_rule: which regions of a map count as landslides; None: all do. None in older bundles.
    """

    name: str = Field(pattern=_NAME)
    model: dict[str, Any]
    sampling: dict[str, Any]
    bands: int = Field(ge=1, le=2**16)
    dtype: Literal["uint8", "uint16", "float32"]
    gsd_m: FiniteFloat | None = Field(gt=0)
    stride: int = Field(ge=1, le=_PIXELS)
    statistics: tuple[BandStatistics, ...]
    threshold: FiniteFloat = Field(ge=0, le=1)
    temperature: FiniteFloat = Field(gt=0)
    bias: FiniteFloat = 0.0
    metrics: dict[str, Scores]
    config_hash: str
    training_tiles: tuple[str, ...] = ()
    test_tiles: tuple[str, ...] = ()
    held_out: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    started_from: str = ""
    data_terms: str = ""
    data_link: str = Field("", pattern=r"^(https?://\S+)?$")
    object_rule: FittedRule | None = None

    @model_validator(mode="after")
    def _check_statistics(self) -> Self:
        if len(self.statistics) != self.bands:
            raise ValueError(f"expected `statistics` of {self.bands} bands, received {len(self.statistics)}")
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later additions out where they are empty, so that the digests of older bundles stay as they are."""
        values: dict[str, Any] = serialize(self)
        for name in ("halos", "object_rule", "familiarity"):
            if not values.get(name):
                values.pop(name, None)
        return values


class BundleInfo(ModelFacts):
    """Contents of model.json.

    Args:
        format: number of the bundle format; readers refuse any other number.
        lim_keras_version, created: version and time of the export.
        versions: versions of Python and of the libraries used for the export.
        folds: number of `fold_<k>` folders.
        halo: context around a core that influences its prediction, pixels (`lim_keras.models.receptive_field`).
        halos: smaller halos for given tolerances, measured. Empty in older bundles and where none was measured.
        familiarity: meaning of the distances of `familiarity.tflite`; None in older bundles and where none was fitted.
        bytes_per_pixel: peak memory of the feature maps for each pixel of a window, bytes.
        files: size and digest of every file except model.json, by its path inside the bundle.
        litert: measurements of each .tflite file, by its path inside the bundle. Empty in older bundles.
        sha256: digest of all other values in model.json; "" before it is written.
    """

    format: Literal[1] = 1
    lim_keras_version: str
    created: AwareDatetime
    versions: dict[str, str]
    folds: int = Field(ge=1, le=1000)
    halo: int = Field(ge=0, le=_PIXELS)
    halos: tuple[MeasuredHalo, ...] = ()
    familiarity: FamiliarityFacts | None = None
    bytes_per_pixel: FiniteFloat = Field(gt=0, le=1e9)
    files: dict[Annotated[str, AfterValidator(_inside)], FileRecord]
    litert: dict[Annotated[str, AfterValidator(_inside)], LiteRtFigures] = Field(default_factory=dict)
    sha256: str = ""

    @model_validator(mode="after")
    def _check_held_out(self) -> Self:
        unknown = sorted(name for name, fold in self.held_out.items() if fold >= self.folds)
        if unknown:
            raise ValueError(
                f"expected folds 0..{self.folds - 1} in `held_out`, received {self.held_out[unknown[0]]} of tile "
                f"{unknown[0]!r} ({len(unknown)} such tiles)"
            )
        return self

    def halo_within(self, tolerance: float | None) -> int:
        """Return the smallest halo, pixels, measured to be within a tolerance; `halo` if there is none, or for None."""
        if tolerance is None:
            return self.halo
        return min([self.halo, *(one.halo for one in self.halos if one.tolerance <= tolerance)])

    def digest(self) -> str:
        """Return the SHA-256 of all values except `sha256`."""
        others = self.model_copy(update={"sha256": ""})
        return hashlib.sha256(others.model_dump_json().encode()).hexdigest()

    def write(self, bundle: Path) -> None:
        """Write model.json, with its digest, into the folder `bundle`."""
        sealed = self.model_copy(update={"sha256": self.digest()})
        write_text(bundle / INFO_FILE, sealed.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, bundle: Path) -> Self:
        """Read model.json of the folder `bundle`.

        Raises:
            BundleError: the file is missing, too large, not valid, of another format, or names a file outside the
                bundle.
        """
        path = bundle / INFO_FILE
        try:
            text, values = read_json(path, INFO_BYTES)
        except FileNotFoundError as error:
            raise BundleError(
                f"{path}: not found. Expected a bundle: a folder exported_models/<name> as `lim-keras fit` and "
                "`lim-keras cv` write it."
            ) from error
        _check_format(values, path)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(f"{path}: not a valid bundle description. {problems(error)}") from None

    def check_files(self, bundle: Path, folder: str) -> None:
        """Raise BundleError if a recorded file below `folder` is missing or changed, or if none is recorded there."""
        records = [name for name in self.files if name.startswith(f"{folder}/")]
        if not records:
            raise BundleError(f"{bundle / folder}: not part of this bundle, which has {self.folds} fold(s).")
        for name in records:
            self.check_file(bundle, name)

    def check_file(self, bundle: Path, name: str) -> None:
        """Raise BundleError if the file `name`, a path inside the bundle, is missing or differs from its record."""
        path, record = bundle / name, self.files[name]
        repair = "Copy the bundle again from where it was exported."
        if not path.is_file():
            raise BundleError(f"{path}: missing. {repair}")
        if not path.resolve().is_relative_to(bundle.resolve()):
            raise BundleError(f"{path}: a link that leaves the bundle, to {path.resolve()}. {repair}")
        size = path.stat().st_size
        if size != record.bytes:
            raise BundleError(f"{path}: expected {record.bytes} bytes. Received: {size} bytes. {repair}")
        if FileRecord.of(path) != record:
            raise BundleError(f"{path}: its content is not what was exported (SHA-256 differs). {repair}")


def _check_format(values: Any, path: Path) -> None:
    if not isinstance(values, dict):
        raise BundleError(f"{path}: damaged, expected a JSON object. Received: {type(values).__name__}")
    if values.get("format") != FORMAT:
        raise BundleError(
            f"{path}: expected bundle format {FORMAT}. Received: format {values.get('format')!r}, written by lim_keras "
            f"{values.get('lim_keras_version', 'unknown')}; this is lim_keras {__version__}. Use that version, or "
            "export again with this one."
        )


def problems(error: ValidationError) -> str:
    """List the problems of a description, key by key, in one line."""
    return "; ".join(
        f"`{'.'.join(map(str, problem['loc'])) or 'the file'}`: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
