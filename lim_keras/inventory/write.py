"""Write an inventory as GeoPackage, GeoJSON or GeoParquet."""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import pyogrio  # type: ignore[import-untyped]

from lim_keras.errors import DataError
from lim_keras.inventory.landslides import Inventory

# Fixed limits, so that inventories can be laid side by side. Colours: YlOrRd of ColorBrewer (Harrower and Brewer 2003).
CLASSES = (
    (0.0, 0.4, "255,255,178"),
    (0.4, 0.6, "254,204,92"),
    (0.6, 0.8, "253,141,60"),
    (0.8, 1.0, "227,26,28"),
)

_PLAIN = "253,141,60"

_OUTLINE = "128,0,38,255"

_FILL_OPACITY = 110  # of 255: the image below stays visible

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

# As QGIS makes it when it stores a style itself (QgsOgrUtils::saveStyle), so that it finds, lists and changes ours.
_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256),
    f_table_schema TEXT(256),
    f_table_name TEXT(256),
    f_geometry_column TEXT(256),
    styleName TEXT(30),
    styleQML TEXT,
    styleSLD TEXT,
    useAsDefault BOOLEAN,
    description TEXT,
    owner TEXT(30),
    ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)
"""


def qml(by_probability: bool) -> str:
    """A style in the XML of QGIS 3: translucent fill, dark outline, no labels.

    by_probability: colour by the classes of probability_mean; else one colour, for a graduated style does not draw
    landslides whose probability is unknown.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology|Labeling", labelsEnabled="0")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", symbollevels="0", enableorderby="0", forceraster="0", referencescale="-1"
    )
    renderer.set("type", "graduatedSymbol" if by_probability else "singleSymbol")
    if by_probability:
        renderer.set("attr", "probability_mean")
        renderer.set("graduatedMethod", "GraduatedColor")
        ranges = ElementTree.SubElement(renderer, "ranges")
        for number, (lower, upper, _) in enumerate(CLASSES):
            label = f"probability {lower:g} \N{EN DASH} {upper:g}"
            limits = {"lower": f"{lower:.15f}", "upper": f"{upper:.15f}"}
            ElementTree.SubElement(ranges, "range", limits, symbol=str(number), label=label, render="true")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, colour in enumerate([colour for *_, colour in CLASSES] if by_probability else [_PLAIN]):
        _add_symbol(symbols, number, colour)
    ElementTree.SubElement(root, "layerGeometryType").text = "2"
    return _DOCTYPE + ElementTree.tostring(root, encoding="unicode")


def store_style(database: sqlite3.Connection, layer: str, style: str, time: str) -> None:
    """Put a style into an open GeoPackage as the default of one of its layers.

    time: of the change, ISO 8601.
    """
    (geometry,) = database.execute(
        "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
    ).fetchone()
    database.execute(_TABLE)
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
        (time,),
    )
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner, ui, update_time) "
        "VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', NULL, ?)",
        (layer, geometry, layer[:30], style, "Landslides by mean probability", time),
    )


def _add_symbol(symbols: ElementTree.Element, number: int, colour: str) -> None:
    attributes = {"type": "fill", "name": str(number), "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
    symbol = ElementTree.SubElement(symbols, "symbol", attributes)
    layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ElementTree.SubElement(layer, "Option", type="Map")
    values = {
        "color": f"{colour},{_FILL_OPACITY}",
        "style": "solid",
        "outline_color": _OUTLINE,
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "joinstyle": "bevel",
    }
    for name, value in values.items():
        ElementTree.SubElement(options, "Option", name=name, type="QString", value=value)


# GeoPackages note when they were changed. A fixed time makes the same inventory the same file, byte by byte.
_TIME = "2000-01-01T00:00:00.000Z"


def write_inventory(inventory: Inventory, path: Path, *, layer: str = "landslides") -> Path:
    """Write an inventory in the format of the name's ending, beside its place first, then renamed.

    The same inventory always gives the same bytes.

    Args:
        inventory: of `lim_keras.inventory.landslides.polygonise`; one without landslides is written too.
        path: .gpkg, with a style that QGIS opens it with; .geojson, in longitude and latitude as RFC 7946 asks for
            (in pixels where the scene has no CRS), whose columns are unknown when it is empty; or .parquet, GeoParquet,
            which needs the extra `lim-keras[parquet]`.
        layer: name of the table in a GeoPackage, and of the collection in GeoJSON.

    Raises:
        DataError: another ending, the file cannot be written, or pyarrow is not installed.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_WRITERS)}.")
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
    try:
        write(inventory, beside, layer)
        beside.replace(path)
    except ImportError as error:
        raise DataError(
            f"{path}: GeoParquet needs pyarrow, which is not installed. Install the extra "
            "(`pip install lim-keras[parquet]`), or write .gpkg or .geojson."
        ) from error
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, sqlite3.Error, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error}). Make room or mend the folder.") from error
    finally:
        for left in (beside, beside.with_name(f"{beside.name}-journal")):
            with suppress(OSError):
                left.unlink()
    return path


def _write_geopackage(inventory: Inventory, path: Path, layer: str) -> None:
    frame = inventory.frame
    with _fixed_time():
        # Nothing here needs a newer one, of which the GDAL of older installations of QGIS warns.
        _write(frame, path, layer, driver="GPKG", VERSION="1.2")
    by_probability = not frame["probability_mean"].isna().any()
    with closing(sqlite3.connect(path)) as database, database:
        store_style(database, layer, qml(by_probability), _TIME)


def _write_geojson(inventory: Inventory, path: Path, layer: str) -> None:
    rfc = "YES" if inventory.crs else "NO"
    _write(inventory.frame, path, layer, driver="GeoJSON", RFC7946=rfc, SIGNIFICANT_FIGURES="10")


def _write_parquet(inventory: Inventory, path: Path, layer: str) -> None:
    inventory.frame.to_parquet(path, index=False)


def _write(frame: geopandas.GeoDataFrame, path: Path, layer: str, **options: str) -> None:
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(frame, path, layer=layer, geometry_type="Polygon", **options)


@contextmanager
def _fixed_time() -> Iterator[None]:
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _TIME})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


_WRITERS: dict[str, Callable[[Inventory, Path, str], None]] = {
    ".gpkg": _write_geopackage,
    ".geojson": _write_geojson,
    ".parquet": _write_parquet,
}
