"""Record of a run, `run.json`: hashes of all that its results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from lim_keras.bundle.info import BundleInfo
from lim_keras.config import RunConfig
from lim_keras.data.contents import Contents, changed_tiles
from lim_keras.data.tiles import TileSet
from lim_keras.errors import ConfigError, DataError, TrainingError
from lim_keras.files import StrPath, write_text
from lim_keras.ownership import file_hash, is_ours

RECORD = "run.json"

CONFIG, TILES, STATISTICS = "config.yaml", "tiles.csv", "statistics.json"

SUMMARIES = ("cv.json", "fit.json")
"""Files of the scores of a cross-validation and of a single model, in the run folder."""

TEST = -1
"""Fold number of test tiles."""

_FORMAT = 1

_MAX_LISTED = 20


@dataclass(frozen=True)
class Sources:
    """Weights that a run starts from or learns from. "" stands for none.

    Attributes:
        encoder_weights: "imagenet", "none", or the SHA-256 of the weights file.
        start_from: digest of the bundle whose weights the run starts from.
        teacher: digest of the bundle that is distilled.
    """

    encoder_weights: str = ""
    start_from: str = ""
    teacher: str = ""

    @classmethod
    def read(
        cls,
        config: RunConfig,
        *,
        encoder_weights: str | None = None,
        start_from: StrPath | None = None,
        teacher: StrPath | None = None,
    ) -> Self:
        """Read the digests; arguments as in `lim_keras.distill`.

        Raises:
            ConfigError: `training.start_share` has no weights to keep a share of.
            DataError: the weights file cannot be read.
            BundleError: a bundle cannot be read.
        """
        if config.training.start_share and start_from is None:
            raise ConfigError(
                "training.start_share: expected 0 without `start_from`, the bundle whose weights get this share. "
                f"Received: {config.training.start_share}."
            )
        start = "" if start_from is None else bundle_digest(BundleInfo.read(Path(start_from)))
        taught = "" if teacher is None else bundle_digest(BundleInfo.read(Path(teacher)))
        weights = config.model.encoder_weights if encoder_weights is None else encoder_weights
        # A warm start sets all weights, so the encoder weights are not read.
        return cls("" if start else _encoder_digest(weights), start, taught)

    def differing(self, before: Sources) -> list[str]:
        """Return the names of the attributes that differ."""
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(before, one.name)]


def _encoder_digest(weights: str) -> str:
    if weights in ("imagenet", "none"):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise DataError(
            f"Encoder weights '{weights}' not found. Expected `imagenet`, `none` or the path of a weights file as "
            "`encoder_weights`."
        )
    return file_hash(path)


def bundle_digest(info: BundleInfo) -> str:
    """Return the SHA-256 over all that decides the predictions of a bundle and the folds of its tiles."""
    # The graphs are left out: their bytes differ between two exports of one model.
    weights = {name: record.sha256 for name, record in info.files.items() if "/variables/" in name}
    values = [info.config_hash, info.temperature, info.bias, weights, info.held_out]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class RunRecord:
    """Content of `run.json`.

    Attributes:
        files: SHA-256 of the files of the run folder that no later step changes, by name.
        tiles: contents of all tiles.
        sources: weights that the run uses; None: unknown.
    """

    files: Mapping[str, str]
    tiles: Contents = field(default_factory=dict)
    sources: Sources | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the record of a run folder; None where there is none, or a file of another origin."""
        try:
            values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if values["lim_keras_run"] != _FORMAT:
                return None
            sources = values["sources"]
            return cls(values["files"], values["tiles"], None if sources is None else Sources(**sources))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the record."""
        values: dict[str, Any] = {"lim_keras_run": _FORMAT, **asdict(self)}
        write_text(folder / RECORD, json.dumps(values, indent=1) + "\n")

    def check_files(self, folder: Path) -> None:
        """Raise TrainingError if recorded files of the run folder were changed or are missing."""
        changed = [name for name, digest in self.files.items() if not is_ours(folder / name, [digest])]
        if changed:
            raise TrainingError(
                f"{folder}: {', '.join(changed)} changed since the run began. Restore what was there, or give another "
                "folder as `run`."
            )

    def check_sources(self, folder: Path, sources: Sources | None) -> None:
        """Raise TrainingError if the run was begun with other weights."""
        if sources is None or self.sources is None:
            return
        differing = sources.differing(self.sources)
        if differing:
            names = ", ".join(f"`{name}`" for name in differing)
            raise TrainingError(
                f"{folder} holds a run that began with other weights: {names} differ. Give another folder as `run`, "
                "or the same weights."
            )

    def check_tiles(self, folder: Path, tiles: TileSet, now: Contents) -> None:
        """Raise TrainingError if tiles were changed, added or removed since the run began."""
        changes = changed_tiles(self.tiles, now, tiles)
        if changes:
            raise TrainingError(
                f"{folder} holds a run on other tiles. Changed since it began: {_listed(changes)}. Give another "
                "folder as `run`, or restore the tiles."
            )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
