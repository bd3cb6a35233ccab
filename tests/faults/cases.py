"""Form of a hostile case, and what its files are made from."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LITERT = Path(__file__).parents[2] / "exported_models" / "bijie_edge" / "tflite" / "fold_0_int8.tflite"


@dataclass(frozen=True)
class Function:
    """Call of `lim_keras.NAME(*values)` in place of a command."""

    name: str
    values: tuple[Any, ...]


Call = tuple[str, ...] | Function
"""Arguments of `lim-keras`, or a function of the package."""


@dataclass(frozen=True)
class Assets:
    """Inputs that cases copy: tiles, the bundle of one small model, the configuration of a short training."""

    tiles: Path
    bundle: Path
    config: Path

    def copy_tiles(self, folder: Path) -> Path:
        """Copy the tiles to `folder`/data."""
        return Path(shutil.copytree(self.tiles, folder / "data"))

    def copy_bundle(self, folder: Path) -> Path:
        """Copy the bundle to `folder`/single."""
        return Path(shutil.copytree(self.bundle, folder / "single"))

    @staticmethod
    def special(folder: Path, name: str, kind: str) -> str:
        """Make a pipe or a folder of a name, or return the name of a device."""
        if kind == "pipe":
            os.mkfifo(folder / name)
        elif kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(kind)
        return name


@dataclass(frozen=True)
class Case:
    """A hostile input: its kind, its name among its kind, and a function that makes its files and returns the call.

    fails: the call has to end in an error; None: the right result or an error; False: only the right result.
    follows: results may come into another folder of the user, to which theirs is a link.
    seconds: limit of the time.
    """

    kind: str
    name: str
    make: Callable[[Path, np.random.Generator, Assets], Call]
    fails: bool | None = None
    follows: bool = False
    seconds: float = 60
