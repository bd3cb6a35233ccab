"""Small data sets of other layouts, made by hand."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np


def picture(path: Path, *, height: int = 6, width: int = 8, seed: int = 0, bands: int = 3) -> Path:
    """Write random pixels; each seed gives other pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def mask(path: Path, values: object) -> Path:
    """Write values (height, width[, 3]) as a PNG, colours in RGB order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])
    return path


def corner(value: int = 255, *, height: int = 6, width: int = 8) -> np.ndarray:
    """Return 2 x 3 landslide pixels in the upper left corner."""
    values = np.zeros((height, width), np.uint8)
    values[:2, :3] = value
    return values


def hdf5(path: Path, name: str, values: np.ndarray) -> Path:
    """Write one data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = values
    return path


def landslide4sense(root: Path, size: int = 128) -> Path:
    """TrainData with 2 images, ValidData with 1, TestData with 1 without a mask; image i has i x i landslide pixels."""
    for part, count in (("TrainData", 2), ("ValidData", 1), ("TestData", 1)):
        for number in range(1, count + 1):
            image = np.broadcast_to(np.arange(14) + 0.25 * number, (size, size, 14))
            hdf5(root / part / "img" / f"image_{number}.h5", "img", image)
            if part != "TestData":
                values = np.zeros((size, size), np.uint8)
                values[:number, :number] = 1
                hdf5(root / part / "mask" / f"mask_{number}.h5", "mask", values)
    return root


def coco(root: Path, annotations: list[dict], **changes: object) -> Path:
    """images/0.png and images/1.png of 8 x 6 px, and annotations.json with the category landslide of id 1."""
    for number in range(2):
        picture(root / "images" / f"{number}.png", seed=number)
    images = [{"id": number, "file_name": f"{number}.png", "width": 8, "height": 6} for number in range(2)]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "landslide"}]}
    (root / "annotations.json").write_text(json.dumps(document | changes))
    return root


def outline(number: int, *points: float, image: int = 0, category: int = 1) -> dict:
    """One annotation with one polygon."""
    return {"id": number, "image_id": image, "category_id": category, "segmentation": [list(points)]}


def yolo(root: Path, labels: dict[str, str], names: str | None = "names: [landslide]\n") -> Path:
    """Images of 10 x 10 px with their label files; keys are such as `train/a`."""
    for seed, (name, text) in enumerate(labels.items()):
        split, stem = name.split("/")
        picture(root / split / "images" / f"{stem}.png", height=10, width=10, seed=seed)
        path = root / split / "labels" / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if names is not None:
        (root / "data.yaml").write_text(names)
    return root
