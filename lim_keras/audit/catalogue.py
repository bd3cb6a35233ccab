"""Titles, explanations and advice of all checks, for a reader who knows landslides and not neural networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lim_keras.data.findings import Check, Evidence, Part, Status

_APART = "Write the groups with `lim-keras data overlaps DATA --out tiles.csv` and train with that file."


@dataclass(frozen=True, slots=True)
class Topic:
    """Texts of one check; attributes as in `Check`."""

    part: Part
    title: str
    explanation: str
    advice: str

    def check(self, name: str, evidence: Sequence[Evidence], *, status: Status | None = None, note: str = "") -> Check:
        """Make a check from its evidence; without `status` it is "found" if there is evidence, else "clear"."""
        ordered = tuple(sorted(evidence, key=lambda one: -one.value))
        found: Status = status or ("found" if ordered else "clear")
        return Check(name, self.part, self.title, self.explanation, self.advice, found, note, ordered)


TOPICS = {
    "leak_id": Topic(
        "leaks",
        "Test tiles that trained a model",
        "A model that saw a tile during training scores better on it than on any new ground.",
        "Remove these tiles from the test list, or train again without them.",
    ),
    "leak_path": Topic(
        "leaks",
        "One file under two names on both sides of a split",
        "The same picture is used to train and to test, so the scores are too good.",
        "Keep one of the two lines in tiles.csv.",
    ),
    "leak_content": Topic(
        "leaks",
        "Equal images on both sides of a split",
        "Two files hold the same picture, as stored, turned or mirrored, and one of them trains the model that is "
        "tested on the other.",
        f"Delete the copies, or keep them together. {_APART}",
    ),
    "leak_ground": Topic(
        "leaks",
        "The same ground on both sides of a split",
        "Tiles that overlap show the same landslides, so a model is tested on ground that it was trained on.",
        _APART,
    ),
    "leak_group": Topic(
        "leaks",
        "Groups on both sides of a split",
        "Tiles of one group show the same ground, but some train a model that is tested on the others.",
        "Put all tiles of a group on one side of the split.",
    ),
    "leak_distance": Topic(
        "leaks",
        "Neighbours on both sides of a split",
        "Neighbouring ground looks alike, so scores on it do not hold for a region without any training tile.",
        "Use spatial folds with a buffer, or choose test tiles of another area.",
    ),
    "conflicting_labels": Topic(
        "labels",
        "Equal images with different labels",
        "The same picture is labelled in two ways, so at least one of the masks is wrong.",
        "Compare both masks and delete the wrong tile.",
    ),
    "empty_masks": Topic(
        "labels",
        "Landslide tiles without a landslide pixel",
        "The tile is listed as a landslide tile, but its mask is empty: the outline is missing, or the kind is wrong.",
        "Draw the landslide, or give the tile the kind non-landslide.",
    ),
    "unlabelled": Topic(
        "labels",
        "Tiles with hardly any labelled pixel",
        "Almost all of the tile is ignored or without data, so a model cannot learn from it.",
        "Remove the tile.",
    ),
    "tiny_labels": Topic(
        "labels",
        "Masks with hardly any landslide",
        "The mask holds a few landslide pixels only, often the cut edge of a landslide or a drawing error.",
        "Look at the tile; cut it elsewhere, or delete specks from the mask.",
    ),
    "full_masks": Topic(
        "labels",
        "Masks that are landslide everywhere",
        "Without any background in the tile, the outline cannot be learned, and the mask may be a mistake.",
        "Cut a larger tile, or correct the mask.",
    ),
    "inverted_masks": Topic(
        "labels",
        "Masks that look inverted",
        "Most of the tile is landslide, and the background lies inside it like a landslide: the two values may be "
        "exchanged.",
        "If so, write landslide as 255 and background as 0.",
    ),
    "shifted_masks": Topic(
        "labels",
        "Masks shifted against their images",
        "The outline fits the edges in the image better at another position, as after a wrong georeference.",
        "Look at the outlines; move the polygons or the image by the shift and cut the tiles again.",
    ),
    "common_shift": Topic(
        "labels",
        "All masks shifted by the same distance",
        "Together, the outlines of the set fit the edges in the images better at another position.",
        "Check the georeference of image and labels; move one of them by the shift and cut the tiles again.",
    ),
    "constant": Topic(
        "images",
        "Images with hardly any contrast",
        "The image is nearly one grey: cloud, water, no data, or a failed export.",
        "Remove the tile, or mark its pixels as no data.",
    ),
    "blurred": Topic(
        "images",
        "Blurred images",
        "The image has far less fine detail than the others, so small scars cannot be seen in it.",
        "Replace the image, or remove the tile.",
    ),
    "upsampled": Topic(
        "images",
        "Images enlarged from a coarser resolution",
        "Fine detail is missing as after enlarging, so the true resolution is coarser than the pixel size.",
        "Go back to the original image and its true ground sample distance.",
    ),
    "duplicates": Topic(
        "images",
        "Equal images",
        "The picture is in the set more than once, as stored, turned or mirrored; it counts several times in training "
        "and in the scores.",
        "Keep one of them. Training makes turned and mirrored copies by itself.",
    ),
    "jpeg_blocks": Topic(
        "images",
        "JPEG blocks in a part of the tiles",
        "Some tiles show the 8-pixel blocks of strong compression and others do not, so a model can learn the "
        "compression in place of the ground.",
        "Export all tiles in the same way, without JPEG if possible.",
    ),
    "value_range": Topic(
        "images",
        "Images with other units",
        "The values differ from those of the other tiles by an order of magnitude, as with another scaling or sensor.",
        "Bring all images to the same units.",
    ),
    "saturated": Topic(
        "images",
        "Saturated images",
        "Many pixels hold the largest value, so bright scars, snow and cloud look the same.",
        "Export the image with a wider stretch, or remove the tile.",
    ),
    "black": Topic(
        "images",
        "Black pixels that count as ground",
        "Pixels are 0 in all bands, as beyond the edge of a scene, but they are labelled and train the model.",
        "Set the nodata value of the images, or 255 in the masks with ignore = 255.",
    ),
    "swapped_bands": Topic(
        "images",
        "Bands in another order",
        "The colours fit the other tiles much better after changing the order of the bands.",
        "Save the bands in the order of the other tiles.",
    ),
    "constant_bands": Topic(
        "images",
        "Bands that hold one value",
        "A band holds one value only, or all bands are equal, while other tiles have different bands.",
        "Export the tile again with all bands, or remove it.",
    ),
    "sizes": Topic(
        "set",
        "Tiles of unusual size",
        "The tile is far larger or smaller than the others; resized to one size, its ground has another scale.",
        "Cut tiles of similar size, or train on windows (`sampling.mode: windows`).",
    ),
    "resolutions": Topic(
        "set",
        "Tiles of another ground sample distance",
        "A pixel covers more or less ground than in the other tiles, so equal landslides have different sizes.",
        "Set `sampling.gsd_m`, or resample the tiles.",
    ),
    "georeference": Topic(
        "set",
        "Tiles without a georeference among others with one",
        "Tiles without a georeference cannot be checked for overlaps by position, and cannot be split in space.",
        "Export them with their georeference.",
    ),
    "centre_bias": Topic(
        "set",
        "Landslides lie in the centre of the tiles",
        "A mask that is the same for every tile and never sees the image scores well, so a model can learn the "
        "position in the tile in place of the ground.",
        "Cut tiles with landslides at random positions, as `lim-keras data tile` does, or train on windows. Landslides "
        "of more than half the length of a tile always cover its centre: cut larger tiles.",
    ),
    "shortcuts": Topic(
        "set",
        "A property of the images separates landslide tiles from the others",
        "A property other than landslides, such as brightness or size, separates the two kinds of tiles, so a model "
        "can learn it in place of landslides.",
        "Cut both kinds of tiles from the same images in the same way. If this is done already, the background tiles "
        "show other land than the surroundings of landslides: cut background that is more like them "
        "(`lim-keras data tile --hard-negatives`).",
    ),
    "changed": Topic(
        "predictions",
        "Tiles that changed since the run",
        "The run learned from other files, so its predictions do not belong to these labels.",
        "Train again, or audit the tiles of the run.",
    ),
    "missed": Topic(
        "predictions",
        "Labelled landslides that the model does not see",
        "A model that never saw the tile finds no landslide where the label has one: a hard case, or a wrong label.",
        "Look at the pictures; correct the outline where the label is wrong.",
    ),
    "false": Topic(
        "predictions",
        "Landslides that the labels do not have",
        "A model that never saw the tile is sure of a landslide where the label has none: a false alarm, or a "
        "landslide that was not mapped.",
        "Look at the pictures; add the outline where a landslide is missing.",
    ),
}
"""All checks by name, in the order of the report."""


def skipped(name: str, note: str) -> Check:
    """Make a check that does not apply, with the reason."""
    return TOPICS[name].check(name, (), status="skipped", note=note)


def check(name: str, evidence: Sequence[Evidence], *, status: Status | None = None, note: str = "") -> Check:
    """Make a check from its evidence; see `Topic.check`."""
    return TOPICS[name].check(name, evidence, status=status, note=note)
