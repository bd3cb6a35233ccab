"""Table 2: imbalance of the tiles before and after augmentation."""

from __future__ import annotations

from lim_keras.data.dataset_report import DatasetReport, PixelCounts
from lim_keras.report.figures import imbalance_figure
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.paper import IMBALANCE, LANDSLIDE_TILES, OTHER_TILES, TABLE_2_PIXELS

SIDE = 256
"""Side that the paper resizes tiles to, pixels."""

TITLE = "Table 2: imbalance before and after augmentation"


def make_table2(context: ReproductionContext) -> Part:
    """Count the pixels of all tiles at 256 x 256, and divide background by landslide pixels in three ways."""
    report = DatasetReport.measure(context.tiles, SIDE, "paper")
    imbalance = report.imbalance
    ways = {
        "all tiles, before augmentation": imbalance.before,
        "landslide tiles only": imbalance.landslide,
        "all tiles, after augmentation": imbalance.after,
    }
    ratios = {name: counts.ratio for name, counts in ways.items() if counts.landslide_px}
    drawing = Drawing("table2_ratios", "Background pixels for each landslide pixel.", imbalance_figure(ratios))
    tables = (_samples(imbalance.landslide, imbalance.non_landslide, imbalance.augmented_landslide), _ratios(ways))
    return Part("table2", TITLE, _text(ways), tables, (drawing,))


def _samples(landslide: PixelCounts, other: PixelCounts, augmented: PixelCounts) -> Table:
    before, after = landslide + other, augmented + other
    rows: tuple[tuple[Value, ...], ...] = (
        ("landslide samples", LANDSLIDE_TILES, landslide.samples, 4 * LANDSLIDE_TILES, augmented.samples),
        ("non-landslide samples", OTHER_TILES, other.samples, OTHER_TILES, other.samples),
        ("landslide pixels", TABLE_2_PIXELS, before.landslide_px, None, after.landslide_px),
        ("background pixels", None, before.background_px, None, after.background_px),
        ("imbalance ratio", IMBALANCE["before"], before.ratio, IMBALANCE["after"], after.ratio),
    )
    columns = ("", "before, the paper", "before, these tiles", "after, the paper", "after, these tiles")
    note = (
        "The paper makes three more samples of each landslide tile (Fig. 6). It prints one number of landslide pixels, "
        "without saying whether it was counted before or after that."
    )
    return Table("table2", f"Samples and pixels at {SIDE} x {SIDE}", columns, rows, (note,))


def _ratios(ways: dict[str, PixelCounts]) -> Table:
    paper: tuple[Value, ...] = (IMBALANCE["before"], None, IMBALANCE["after"])
    rows = tuple(
        (name, counts.landslide_px, counts.background_px, counts.ratio, printed)
        for (name, counts), printed in zip(ways.items(), paper, strict=True)
    )
    columns = ("counted over", "landslide pixels", "background pixels", "ratio, these tiles", "ratio, the paper")
    return Table("table2_ratios", "Imbalance ratio, Eq. 1 to 3, counted in three ways", columns, rows)


def _text(ways: dict[str, PixelCounts]) -> tuple[str, ...]:
    before, inside, after = (counts.ratio for counts in ways.values())
    first = (
        f"Each landslide pixel has {before:.1f} background pixels in all tiles, {inside:.1f} in landslide tiles alone, "
        f"and {after:.1f} in all samples after the paper's augmentation. The paper prints {IMBALANCE['before']:g} "
        f"before and {IMBALANCE['after']:g} after it."
    )
    bound = (
        f"A copy of a landslide tile brings {inside:.1f} background pixels with each landslide pixel, so no number of "
        f"copies brings the ratio below {inside:.1f}."
    )
    contradicts = inside > IMBALANCE["after"]
    return (first, f"{bound} The paper's {IMBALANCE['after']:g} is below that." if contradicts else bound)
