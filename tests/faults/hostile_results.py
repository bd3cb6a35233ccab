"""Folders of results in which somebody planted files, links and summaries before the call."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.cases import LITERT, Assets, Call, Case
from tests.faults.conftest import write_scene

Plant = Callable[[Path], object]
"""Plant something in a folder of results."""


def _predicted(plant: Plant) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        _treasure(folder)
        plant(folder / "out")
        return ("predict", str(LITERT), "area.tif", "--out", "out", "--memory", "2G")

    return make


def _trained(plant: Plant) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        assets.copy_tiles(folder)
        shutil.copy(assets.config, folder / "tiny.yaml")
        _treasure(folder)
        plant(folder / "out")
        few = ("--set", "training.epochs=1", "--run", "out/run", "--export", "out/tiny")
        return ("fit", "tiny.yaml", "--data", "data", *few)

    return make


def _treasure(folder: Path) -> None:
    """Make files of the user beside the results."""
    (folder / "treasure").mkdir()
    (folder / "treasure" / "years_of_work.tif").write_text("the only copy")
    (folder / "out").mkdir()


def _link(name: str, target: str = "../treasure/years_of_work.tif") -> Plant:
    def plant(out: Path) -> None:
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).symlink_to(target)

    return plant


def _file(name: str, text: str = "the user's own") -> Plant:
    def plant(out: Path) -> None:
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text(text)

    return plant


def _folder(name: str) -> Plant:
    return _file(f"{name}/mine.txt")


def _summary(*files: str, **more: object) -> Plant:
    """Plant a summary that claims files of other folders."""
    return _file("area_summary.json", json.dumps({"files": list(files), "identity": "0" * 64, **more}))


def _pipe(name: str) -> Plant:
    return lambda out: os.mkfifo(out / name)


def _linked_out(out: Path) -> None:
    out.rmdir()
    out.symlink_to("treasure")


PREDICTED: dict[str, Plant] = {
    "map is a file of the user": _file("area_probability.tif"),
    "inventory is a file of the user": _file("area_inventory.gpkg"),
    "mask is a link": _link("area_landslides.tif"),
    "summary is a link": _link("area_summary.json"),
    "map is a folder": _folder("area_probability.tif"),
    "working folder is a link": _link(".area.lim-keras.partial", "../treasure"),
    "working folder is a file": _file(".area.lim-keras.partial"),
    "summary of other folders": _summary("../treasure/years_of_work.tif", "/etc/hostname"),
    "summary of a file of the user": lambda out: (_summary("area_old.tif")(out), _file("area_old.tif")(out)),
    "summary of wrong types": _file("area_summary.json", '{"files": [1, null], "identity": []}'),
    "summary nested deeply": _file("area_summary.json", "[" * 100_000),
    "summary is a pipe": _pipe("area_summary.json"),
    "summary of the call is a folder": _folder("summary.json"),
    "results are a link": _linked_out,
}

TRAINED: dict[str, Plant] = {
    "run is a file of the user": _file("run"),
    "run is a folder of the user": _folder("run"),
    "run is a link": _link("run", "../treasure"),
    "configuration is a link": _link("run/config.yaml"),
    "bundle is a folder of the user": _folder("tiny"),
    "bundle is a link": _link("tiny", "../treasure"),
    "draft of the bundle is a link": _link(".tiny.partial", "../treasure"),
}


def cases() -> list[Case]:
    """List the cases."""
    linked = ("results are a link", "run is a link")
    made = [
        Case("planted results of predict", name, _predicted(plant), follows=name in linked)
        for name, plant in PREDICTED.items()
    ]
    return made + [
        Case("planted results of fit", name, _trained(plant), follows=name in linked, seconds=240)
        for name, plant in TRAINED.items()
    ]
