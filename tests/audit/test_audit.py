"""`lim-keras data audit`: a clean set has no finding, and each planted defect is found in its tile."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

import lim_keras as lk
from lim_keras.cli import main
from lim_keras.raster.writer import write_raster
from tests.audit.conftest import ground, landslide


def run(*arguments: object):
    return CliRunner().invoke(main, ["data", "audit", *map(str, arguments)])


def results(path: Path) -> dict[str, dict]:
    return {check["name"]: check for check in json.loads(path.read_text())["checks"]}


def names(check: dict) -> set[str]:
    return {one["tile_id"] for one in check["evidence"]}


def change(folder: Path, tile_id: str, edit, part: str = "image") -> None:
    """Replace the pixels of a file, (bands, height, width), by those that `edit` makes of them."""
    path = next(folder.glob(f"*/{part}/{tile_id}.tif"))
    with rasterio.open(path) as source:
        pixels, profile = source.read(), source.profile
    made = edit(pixels)
    profile |= {"dtype": made.dtype, "compress": None, "photometric": None, "interleave": "pixel"}
    path.unlink()
    with rasterio.open(path, "w", **profile) as target:
        target.write(made)


def moved(pixels: np.ndarray, dx: int, dy: int) -> np.ndarray:
    shift = np.float32([[1, 0, dx], [0, 1, dy]])
    height, width = pixels.shape[1:]
    layers = [cv2.warpAffine(one, shift, (width, height), flags=cv2.INTER_NEAREST) for one in pixels]
    return np.stack(layers)


def blurred(pixels: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in pixels])


def enlarged(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[1:]
    small = [cv2.resize(one, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA) for one in pixels]
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in small])


def compressed(pixels: np.ndarray) -> np.ndarray:
    data = cv2.imencode(".jpg", pixels.transpose(1, 2, 0), [cv2.IMWRITE_JPEG_QUALITY, 35])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR).transpose(2, 0, 1)


def saturated(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels > np.percentile(pixels, 60), np.uint8(255), pixels)


def black_edge(pixels: np.ndarray) -> np.ndarray:
    pixels[:, :10] = 0
    return pixels


def speck(pixels: np.ndarray) -> np.ndarray:
    made = np.zeros_like(pixels)
    made[:, 20:22, 20:22] = 255
    return made


def hole(pixels: np.ndarray) -> np.ndarray:
    made = np.full_like(pixels, 255)
    made[:, 30:45, 30:45] = 0
    return made


IMAGES = {
    "constant": ("nls_00", lambda pixels: np.full_like(pixels, 90) + (pixels > 100)),
    "blurred": ("nls_01", blurred),
    "upsampled": ("nls_02", enlarged),
    "jpeg_blocks": ("nls_03", compressed),
    "saturated": ("nls_04", saturated),
    "black": ("nls_05", black_edge),
    "swapped_bands": ("nls_06", lambda pixels: pixels[[2, 0, 1]]),
    "value_range": ("nls_07", lambda pixels: (pixels // 16).astype(np.uint8)),
    "constant_bands": ("nls_08", lambda pixels: pixels * np.uint8([[[1]], [[1]], [[0]]])),
}
MASKS = {
    "empty_masks": ("ls_00", np.zeros_like),
    "tiny_labels": ("ls_01", speck),
    "full_masks": ("ls_02", lambda pixels: np.full_like(pixels, 255)),
    "inverted_masks": ("ls_03", hole),
}


@pytest.fixture(scope="module")
def defective(clean_tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Checks of a set in which each defect lies in a tile of its own."""
    folder = tmp_path_factory.mktemp("defective")
    tiles = Path(shutil.copytree(clean_tiles, folder / "tiles"))
    for tile_id, edit in IMAGES.values():
        change(tiles, tile_id, edit)
    for tile_id, edit in MASKS.values():
        change(tiles, tile_id, edit, "mask")
    done = run(tiles, "--json", folder / "audit.json")
    assert done.exit_code == 0, done.output
    return results(folder / "audit.json")


def test_clean_tiles_have_no_finding(clean_tiles, tmp_path):
    done = run(clean_tiles, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    assert "No defect found." in done.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["findings"] == [] and not content["leak"] and content["tiles"] == 30


@pytest.mark.parametrize("name", [*IMAGES, *MASKS])
def test_planted_defects_are_found(defective, name):
    tile_id = (IMAGES | MASKS)[name][0]
    assert tile_id in names(defective[name])
    assert defective[name]["status"] == "found" and defective[name]["advice"]
    assert len(names(defective[name])) <= 2  # the tile, and at most one that another defect changed


def test_masks_that_are_shifted(clean_tiles, tmp_path):
    tiles = Path(shutil.copytree(clean_tiles, tmp_path / "tiles"))
    for path in (tiles / "landslide" / "mask").iterdir():
        change(tiles, path.stem, lambda pixels: moved(pixels, 8, 0), "mask")
    report = lk.audit_tiles(tiles)
    found = {check.name: check for check in report.findings}
    assert found["common_shift"].note == "masks should move 8 px left"
    single = [one for one in found["shifted_masks"].evidence if "8 px left" in one.text]
    assert len(single) >= 8  # of 14; the others have few edges


def test_equal_images_turned_and_labelled_otherwise(clean_tiles, tmp_path):
    tiles = Path(shutil.copytree(clean_tiles, tmp_path / "tiles"))
    for part in ("image", "mask"):
        with rasterio.open(tiles / "landslide" / part / "ls_04.tif") as source:
            pixels = source.read().transpose(1, 2, 0)[..., ::-1]  # OpenCV writes BGR
        if part == "mask":
            pixels[:40] = 0
        cv2.imwrite(str(tiles / "landslide" / part / "z.png"), np.ascontiguousarray(np.rot90(pixels)))
    done = run(tiles, "--json", tmp_path / "a.json")
    found = results(tmp_path / "a.json")
    assert done.exit_code == 1  # nothing keeps both copies on one side of a split
    for name in ("leak_content", "duplicates", "conflicting_labels"):
        assert [(one["tile_id"], one["other"]) for one in found[name]["evidence"]] == [("z", "ls_04")]
    assert names(found["georeference"]) == {"z"}


def manifest(folder: Path, path: Path, **columns: dict[str, str]) -> Path:
    """Write a tiles.csv of all tiles; `columns` holds values by tile id, "" for the others."""
    lines = [",".join(["tile_id", "image", "mask", "kind", *columns])]
    for image in sorted(folder.glob("*/image/*.tif")):
        mask = image.parents[1] / "mask" / image.name
        cells = [image.stem, str(image), str(mask) if mask.exists() else "", image.parents[1].name]
        lines.append(",".join([*cells, *(values.get(image.stem, "") for values in columns.values())]))
    path.write_text("\n".join(lines) + "\n")
    return path


def overlapping(folder: Path) -> None:
    """Write the tile `nls_copy`, which shows the lower half of the ground of nls_00."""
    images = folder / "non-landslide" / "image"
    with rasterio.open(images / "nls_00.tif") as source:
        pixels, place = source.read(), source.transform
    half = pixels.shape[1] // 2
    lower = Affine(place.a, 0, place.c, 0, place.e, place.f + half * place.e)
    write_raster(images / "nls_copy.tif", pixels[:, half:].transpose(1, 2, 0), crs="EPSG:32648", transform=lower)


def test_shared_ground_is_a_leak_until_a_group_keeps_it_together(clean_tiles, tmp_path):
    tiles = Path(shutil.copytree(clean_tiles, tmp_path / "tiles"))
    overlapping(tiles)
    done = run(tiles)
    assert done.exit_code == 1
    assert "LEAK: The same ground on both sides of a split (1)" in done.stdout
    assert re.search(r"nls_00 +│ nls_copy", done.stdout)
    together = manifest(tiles, tmp_path / "groups.csv", group={"nls_00": "g", "nls_copy": "g"})
    assert run(together).exit_code == 0
    (tmp_path / "test.txt").write_text("nls_copy\nls_01\n")
    done = run(together, "--test", tmp_path / "test.txt", "--json", tmp_path / "a.json")
    found = results(tmp_path / "a.json")
    assert done.exit_code == 1
    assert names(found["leak_ground"]) == {"nls_00"} and names(found["leak_group"]) == {"nls_copy"}
    assert found["leak_content"]["status"] == "clear"


def test_folds_of_a_manifest_and_distances(clean_tiles, tmp_path):
    ids = sorted(path.stem for path in clean_tiles.glob("*/image/*.tif"))
    folds = {tile_id: str(number % 2) for number, tile_id in enumerate(ids)}
    path = manifest(clean_tiles, tmp_path / "folds.csv", fold=folds)
    assert run(path).exit_code == 0
    done = run(path, "--min-distance", 1000, "--json", tmp_path / "a.json")
    distances = results(tmp_path / "a.json")["leak_distance"]
    assert done.exit_code == 1 and distances["status"] == "leak"
    metres = [float(one["text"].split(" m")[0]) for one in distances["evidence"]]
    assert metres == sorted(metres) and metres[0] >= 760 and metres[-1] < 1000
    assert all(folds[one["tile_id"]] != folds[one["other"]] for one in distances["evidence"])


def test_one_file_under_two_ids(clean_tiles, tmp_path):
    path = manifest(clean_tiles, tmp_path / "tiles.csv")
    line = next(line for line in path.read_text().splitlines() if line.startswith("nls_03"))
    path.write_text(path.read_text() + "again" + line[6:] + "\n")
    report = lk.audit_tiles(path)
    leaks = {check.name for check in report.findings if check.status == "leak"}
    assert report.has_leak and leaks == {"leak_path", "leak_content"}


def test_a_side_effect_of_one_kind(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = np.rint(ground(rng, 72, 72)).clip(0, 255).astype(np.uint8)
        kind, parts = "non-landslide", {"image": pixels}
        if number < 20:
            mask = landslide(rng, 72, 72).astype(np.uint8) * 255
            kind, parts = "landslide", {"image": compressed(pixels.transpose(2, 0, 1)).transpose(1, 2, 0), "mask": mask}
        for part, values in parts.items():
            (tmp_path / kind / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / part / f"t{number}.png"), values)
    found = {check.name: check for check in lk.audit_tiles(tmp_path).findings}
    assert "strength of JPEG blocks: AUROC 1.00" in found["shortcuts"].note
    assert "100% of the landslide tiles, 0% of the non-landslide tiles" in found["jpeg_blocks"].note


def test_centred_landslides(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        noise = rng.integers(40, 90, (64, 64, 3), np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[20:44, 20:44] = 255
        for part, pixels in (("images", noise), ("masks", mask)):
            (tmp_path / "tiles" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "tiles" / part / f"t{number}.png"), pixels)
    found = {check.name: check for check in lk.audit_tiles(tmp_path / "tiles").findings}
    # 24 x 24 of 64 x 64 pixels are landslide: everywhere 2 p / (1 + p) with p = 0.1406
    assert found["centre_bias"].note.endswith("image: 1.000; of landslide everywhere: 0.247")


HOSTILE = '<script>alert("x")<&amp;'


def test_the_page_is_one_file_with_escaped_names(clean_tiles, tmp_path):
    tiles = Path(shutil.copytree(clean_tiles, tmp_path / "<b>tiles"))
    for part in ("image", "mask"):
        (tiles / "landslide" / part / "ls_05.tif").rename(tiles / "landslide" / part / f"{HOSTILE}.tif")
    change(tiles, "ls_06", np.zeros_like, "mask")
    change(tiles, HOSTILE, np.zeros_like, "mask")
    done = run(tiles, "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page and "&lt;script&gt;alert(&#34;x&#34;)&lt;&amp;amp;" in page
    assert "<b>" not in page and "//" not in re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    sources = re.findall(r'src="([^"]{30})', page)
    assert len(sources) >= 2 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<link|@import|url\(|href=\"[^#]", page)


def test_files_of_the_user_are_never_replaced(clean_tiles, tmp_path):
    page = tmp_path / "a.html"
    assert run(clean_tiles, "--html", page).exit_code == 0
    assert run(clean_tiles, "--html", page).exit_code == 0  # of an earlier call, unchanged
    edited = page.read_text().replace("No defect found", "All is well")
    for content in (edited, "<!doctype html>\n<p>mine", ""):
        page.write_text(content)
        done = run(clean_tiles, "--html", page)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "a.html (not written by lim-keras, or changed since)" in done.stderr
        assert done.stderr.endswith("as --html.\n") and page.read_text() == content


def test_wrong_arguments(clean_tiles, tmp_path):
    same = tmp_path / "a.x"
    assert run(clean_tiles, "--html", same, "--json", same).exit_code == 2
    assert run(clean_tiles, "--min-distance", "-1").exit_code == 2
    done = run(clean_tiles, "--run", tmp_path)
    assert done.exit_code == 1 and "expected a run folder, but config.yaml" in done.stderr
    assert "as --run" in done.stderr
    (tmp_path / "test.txt").write_text("unknown\n")
    done = run(clean_tiles, "--test", tmp_path / "test.txt")
    assert done.exit_code == 1 and "no tile has the id 'unknown'" in done.stderr


def test_wide_and_float_tiles(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(9):
        image = rng.normal(0.1, 0.02, (40, 60, 5)).astype(np.float32)
        image[:, :, 4] += 0.3
        if number == 0:
            image *= 10_000
        if number == 1:
            image[:4, :4] = np.nan
        for part, values in (("images", image), ("masks", (image[..., 0] > 0.14).astype(np.uint8))):
            (tmp_path / "tiles" / part).mkdir(parents=True, exist_ok=True)
            write_raster(tmp_path / "tiles" / part / f"é {number}.tif", values)
    done = run(tmp_path / "tiles", "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    assert names(results(tmp_path / "a.json")["value_range"]) == {"é 0"}
    assert "é 0" in (tmp_path / "a.html").read_text()
