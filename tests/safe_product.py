"""Write small Sentinel-2 products: SAFE folders with JPEG 2000 images of bands, and archives of them."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
METRES = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B01": 60, "B09": 60, "B10": 60}  # others: 20
UTM, EAST, NORTH = "EPSG:32648", 499_980.0, 3_000_000.0
GRANULES = {"L1C": "L1C_T48RXV_A030551_20220125T033021", "L2A": "L2A_T48RXV_A030551_20220125T033021"}


def metres(band: str) -> int:
    """Return the ground sample distance of a band."""
    return METRES.get(band, 20)


def write_safe(
    path: Path,
    bands: Mapping[str, np.ndarray],
    *,
    level: str = "L2A",
    baseline: str = "05.10",
    scale: float | None = 10_000,
    offset: int | None = -1000,
    granule: str = "",
    crs: str = UTM,
    corner: tuple[float, float] = (EAST, NORTH),
    special: tuple[int, int] = (0, 65535),
) -> Path:
    """Write a product, or add a granule to it.

    Args:
        bands: digital numbers (height, width), uint16, by name of the band, such as "B04".
        offset: what the metadata adds to the numbers of all bands; None: no offsets, as before baseline 04.00.
        special: digital numbers of no data and of saturated pixels.
    """
    granule = granule or GRANULES[level]
    folder = path / "GRANULE" / granule / "IMG_DATA"
    for band, numbers in bands.items():
        step = metres(band)
        name = f"T48RXV_20220125T033021_{band}" + (f"_{step}m" if level == "L2A" else "")
        place = folder / f"R{step}m" if level == "L2A" else folder
        write_jp2(place / f"{name}.jp2", numbers, step, crs=crs, corner=corner)
    (path / "GRANULE" / granule / "MTD_TL.xml").write_text("<Tile/>")
    (path / f"MTD_MSI{level}.xml").write_text(metadata(level, baseline, scale, offset, special), encoding="utf-8")
    (path / "manifest.safe").write_text("<xfdu/>")
    return path


def write_jp2(path: Path, numbers: np.ndarray, step: float, *, crs: str, corner: tuple[float, float]) -> Path:
    """Write one band without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = numbers.shape
    profile: dict[str, Any] = {"count": 1, "dtype": "uint16", "crs": crs, "QUALITY": 100, "REVERSIBLE": "YES"}
    place = Affine(step, 0, corner[0], 0, -step, corner[1])
    with rasterio.open(path, "w", "JP2OpenJPEG", width, height, transform=place, **profile) as target:
        target.write(numbers.astype(np.uint16), 1)
    return path


def metadata(level: str, baseline: str, scale: float | None, offset: int | None, special: tuple[int, int]) -> str:
    """Return the metadata of a product, as far as readers of images need it."""
    digits, start = level[1:], "BOA_" if level == "L2A" else ""
    kind = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    offsets = "".join(f'<{kind} band_id="{number}">{offset}</{kind}>' for number in range(13))
    values = "".join(
        f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>{value}</SPECIAL_VALUE_INDEX></Special_Values>"
        for text, value in zip(("NODATA", "SATURATED"), special, strict=True)
    )
    shown = "" if scale is None else f'<{start}QUANTIFICATION_VALUE unit="none">{scale}</{start}QUANTIFICATION_VALUE>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><n1:Level-{digits}_User_Product '
        f'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{digits}.xsd"><n1:General_Info>'
        f"<Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        f"<Product_Image_Characteristics>{values}<QUANTIFICATION_VALUES_LIST>{shown}</QUANTIFICATION_VALUES_LIST>"
        f"{'' if offset is None else offsets}</Product_Image_Characteristics></n1:General_Info>"
        f"</n1:Level-{digits}_User_Product>"
    )


def zipped(product: Path, archive: Path, *, inside: str = "") -> Path:
    """Pack a product into an archive, below the folder `inside`."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted(product.rglob("*")):
            target.write(file, f"{inside}{product.name}/{file.relative_to(product).as_posix()}")
    return archive


def without(product: Path, band: str) -> Path:
    """Delete the images of a band."""
    for image in product.rglob(f"*_{band}*.jp2"):
        image.unlink()
    return product


def moved(product: Path, target: Path) -> Path:
    """Copy a product to another path."""
    shutil.copytree(product, target)
    return target
