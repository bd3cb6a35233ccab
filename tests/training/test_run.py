"""Run folders: begun once, gone on with only by the same settings on the same tiles."""

import json
import shutil
from dataclasses import replace

import cv2
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning, TrainingError
from lim_keras.training.record import Sources
from lim_keras.training.run import TEST, Run


def folds_of(tiles, count):
    return {name: int(name[-1]) % count for name in tiles.ids}


def test_a_run_is_read_back_as_it_was_begun(run):
    begun = run()
    again = Run.load(begun.folder)
    assert (again.config, again.folds, again.statistics) == (begun.config, begun.folds, begun.statistics)
    assert again.tiles.ids == begun.tiles.ids
    assert [tile.image for tile in again.tiles] == [tile.image for tile in begun.tiles]
    assert sorted(path.name for path in begun.folder.iterdir()) == [
        *("config.yaml", "run.json", "statistics.json", "tiles.csv")
    ]


def test_tiles_by_fold(run):
    begun = run()
    assert begun.held_out_folds == [0, 1]
    assert begun.held_out_tiles(1).ids == ("ls_1", "ls_3", "nls_1", "nls_3")
    assert begun.training_tiles(1).ids == ("ls_0", "ls_2", "ls_4", "nls_0", "nls_2", "nls_4")
    assert begun.test_tiles.ids == ("ls_5", "nls_5")
    assert len(begun.seen_tiles) == 10 and "ls_5" not in begun.seen_tiles
    assert begun.fold_folder(1) == begun.folder / "fold_1"


@pytest.mark.parametrize("count", [2, 3])
def test_every_fold_has_a_model(tmp_path, tiles, config, count):
    assert Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, count)).held_out_folds == list(range(count))


def test_a_run_of_one_model_holds_some_tiles_out(tmp_path, tiles, config):
    begun = Run.open(tmp_path / "r", config(), tiles, {"ls_0": 0, "nls_0": 0})
    for same in (begun, Run.load(begun.folder)):
        assert same.held_out_folds == [0]
        assert same.held_out_tiles(0).ids == ("ls_0", "nls_0")
        assert len(same.training_tiles(0)) == 10
        assert same.test_tiles is None


@pytest.mark.parametrize(
    ("of_tiles", "settings", "expected"),
    [
        ((None, None), {}, None),
        ((2.0, 2.0), {}, 2.0),
        ((2.0, 2.0), {"gsd_m": 0.8}, 2.0),  # which is for tiles that do not say
        ((2.0, 2.0), {"sampling.gsd_m": 4.0}, 4.0),
        ((None, 0.8), {"gsd_m": 0.8}, 0.8),
        ((None, 2.0), {}, None),
        ((1.0, 2.0), {}, None),
        ((1.0, 2.0), {"gsd_m": 0.8}, 0.8),
        ((2.0, 2.01), {}, 2.005),
    ],
)
def test_the_ground_sample_distance_is_that_of_the_tiles(tmp_path, tiles, config, of_tiles, settings, expected):
    distances = dict(zip(("ls_0", "nls_0"), of_tiles, strict=True)) | {"nls_1": 30.0}  # a test tile
    placed = tuple(replace(tiles[name], gsd_m=distance) for name, distance in distances.items())
    begun = Run.open(tmp_path / "r", config(**settings), tiles, {"ls_0": 0, "nls_0": 1, "nls_1": TEST})
    of_these = replace(begun, tiles=TileSet(tiles.root, placed, tiles.bands, tiles.dtype))
    assert of_these.gsd_m == (expected if expected is None else pytest.approx(expected))


def test_statistics_leave_test_tiles_out(tmp_path, tiles, config):
    only = Run.open(
        tmp_path / "r", config(), tiles, {name: TEST for name in tiles.ids if name != "nls_0"} | {"nls_0": 0}
    )
    assert only.seen_tiles.ids == ("nls_0",)
    every = Run.open(tmp_path / "every", config(), tiles, folds_of(tiles, 2))
    assert only.statistics != every.statistics


def test_the_same_call_goes_on(run):
    first = run()
    (first.folder / "fold_0").mkdir()
    statistics = (first.folder / "statistics.json").stat().st_mtime_ns
    assert run().folds == first.folds
    assert (first.folder / "statistics.json").stat().st_mtime_ns == statistics


def test_other_settings_are_refused_by_name(run):
    run()
    with pytest.raises(TrainingError, match=r"run holds a run of another configuration; seed, training\.epochs differ"):
        run(**{"training.epochs": 5, "seed": 1})


def test_other_folds_are_refused(tmp_path, tiles, config):
    Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, 2))
    with pytest.raises(TrainingError, match=r"r holds a run on other tiles or folds\. Give another folder as `run`"):
        Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, 3))


def test_a_run_killed_while_it_began_begins_again(tmp_path, tiles, config):
    folder = tmp_path / "r"
    Run.open(folder, config(), tiles, folds_of(tiles, 2))
    (folder / "statistics.json").rename(folder / "statistics.json.partial")
    (folder / "notes.txt").write_text("mine")
    begun = Run.open(folder, config(seed=5), tiles, folds_of(tiles, 3))
    assert begun.config.seed == 5 and begun.held_out_folds == [0, 1, 2]
    assert json.loads((folder / "statistics.json").read_text())["dtype"] == "uint8"
    assert (folder / "notes.txt").read_text() == "mine"
    assert Run.open(folder, config(seed=5), tiles, folds_of(tiles, 3)).folds == begun.folds


@pytest.fixture
def own(tmp_path, data):
    """own(*changes): the tiles of a copy of `data`, after each change(folder)."""
    folder = shutil.copytree(data, tmp_path / "data")

    def read(*changes):
        for change in changes:
            change(folder)
        return read_tiles(folder)

    return read


def draw(name):
    """Set one pixel of a mask, or swap two values of an image; neither changes the size of the picture."""

    def change(folder):
        pixels = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        pixels[0, 0] = 255 - pixels[0, 0]
        cv2.imwrite(str(folder / name), pixels)

    return change


def add_mask(folder):
    pixels = cv2.imread(str(folder / "non-landslide" / "image" / "nls_0.png"))
    (folder / "non-landslide" / "mask").mkdir()
    cv2.imwrite(str(folder / "non-landslide" / "mask" / "nls_0.png"), 0 * pixels[..., 0])


def swap_masks(folder):
    """Same numbers of pixels in all, other masks: both are of one size after this."""
    shutil.copy(folder / "landslide" / "image" / "ls_0.png", folder / "landslide" / "image" / "ls_1.png")
    shutil.copy(folder / "landslide" / "mask" / "ls_0.png", folder / "landslide" / "mask" / "ls_1.png")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (draw("landslide/mask/ls_0.png"), "landslide/mask/ls_0.png. Give"),
        (draw("non-landslide/image/nls_3.png"), "non-landslide/image/nls_3.png. Give"),
        (add_mask, "non-landslide/mask/nls_0.png. Give"),
        (swap_masks, "landslide/image/ls_1.png, .*landslide/mask/ls_1.png. Give"),
        (lambda folder: (folder / "landslide/mask/ls_0.png.msk").write_text("x"), "mask/ls_0.png.msk. Give"),
        (lambda folder: (folder / "landslide/image/ls_0.png.aux.xml").write_text("x"), "ls_0.png.aux.xml. Give"),
    ],
)
def test_a_run_on_files_that_changed_is_not_returned(tmp_path, config, own, change, named):
    before = own()
    folds = folds_of(before, 2)
    folder = Run.open(tmp_path / "r", config(), before, folds).folder
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TrainingError, match=f"r holds a run on other tiles. Changed since it began: .*{named} another"):
        Run.open(folder, config(), own(change), folds)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize(
    ("columns", "named"),
    [({"group": "hill"}, "group of tile ls_0"), ({"gsd_m": 0.8}, "gsd_m of tile ls_0"), ({"ignore": "255"}, "ignore")],
)
def test_a_run_on_manifest_columns_that_changed_is_not_returned(tmp_path, config, tiles, columns, named):
    folds = folds_of(tiles, 2)
    Run.open(tmp_path / "r", config(), tiles, folds)
    other = replace(tiles, tiles=tuple(replace(one, **columns) if one.tile_id == "ls_0" else one for one in tiles))
    with pytest.raises(TrainingError, match=named):
        Run.open(tmp_path / "r", config(), other, folds)


def test_copied_tiles_continue_a_run_whose_own_tiles_are_checked(tmp_path, config, own, data):
    first, folder = own(), tmp_path / "r"
    folds = folds_of(first, 2)
    Run.open(folder, config(), first, folds)
    copy = read_tiles(shutil.copytree(tmp_path / "data", tmp_path / "copy"))
    assert Run.open(folder, config(), copy, folds).tiles[0].image == first[0].image
    draw("landslide/mask/ls_0.png")(tmp_path / "data")  # the run trains on this one, not on the copy
    with pytest.raises(TrainingError, match=r"data/landslide/mask/ls_0\.png"):
        Run.open(folder, config(), copy, folds)


def test_a_run_with_other_weights_is_refused(tmp_path, config, tiles):
    weights, folds = tmp_path / "weights.h5", folds_of(tiles, 2)
    weights.write_bytes(b"one")

    def opened(**given):
        return Run.open(tmp_path / "r", config(), tiles, folds, Sources.read(config(), **given))

    opened(encoder_weights=str(weights))
    opened(encoder_weights=str(weights))
    weights.write_bytes(b"two")
    for given in (str(weights), None):
        with pytest.raises(TrainingError, match="began with other weights: `encoder_weights` differ"):
            opened(encoder_weights=given)
    with pytest.raises(DataError, match=r"Encoder weights '.*absent\.h5' not found"):
        opened(encoder_weights=str(tmp_path / "absent.h5"))


@pytest.mark.parametrize("name", ["config.yaml", "tiles.csv", "statistics.json"])
def test_files_of_a_run_that_the_user_edited(run, name):
    path = run().folder / name
    path.write_text(path.read_text() + "\n")
    edited = path.read_bytes()
    with pytest.raises(TrainingError, match=f"{name} changed since the run began. Restore what was there, or give"):
        run()
    assert path.read_bytes() == edited


def test_files_of_the_user_are_never_replaced(tmp_path, config, tiles):
    folder, folds = tmp_path / "r", folds_of(tiles, 2)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    names = ["config.yaml", "tiles.csv", "run.json", "curves.png", "cv.json", "fit.json"]
    for name in names:
        (folder / name).write_text("mine")
    for name in ("fold_0", "teacher"):
        (folder / name).mkdir()
    with pytest.raises(DataError) as raised:
        Run.open(folder, config(), tiles, folds)
    assert all(f"{name} (" in str(raised.value) for name in (*names, "fold_0", "teacher"))
    assert "notes.txt" not in str(raised.value) and str(raised.value).endswith("give another folder as `run`.")
    assert {path.read_text() for path in folder.glob("*.*")} == {"mine"}
    for path in folder.iterdir():
        if path.name != "notes.txt":
            path.rename(tmp_path / path.name)  # the cure
    Run.open(folder, config(), tiles, folds)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_link_to_nothing_is_the_users(tmp_path, config, tiles):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "config.yaml").symlink_to("absent.yaml")
    with pytest.raises(DataError, match=r"config\.yaml \(a link\)"):
        Run.open(folder, config(), tiles, folds_of(tiles, 2))
    assert (folder / "config.yaml").is_symlink()


def test_a_run_of_an_earlier_version_continues_with_a_warning(tmp_path, config, own):
    first, folder = own(), tmp_path / "r"
    folds = folds_of(first, 2)
    Run.open(folder, config(), first, folds)
    (folder / "run.json").unlink()
    with pytest.warns(LimKerasWarning, match="begun by an earlier version"):
        Run.open(folder, config(), first, folds)
    with pytest.raises(TrainingError, match=r"ls_0\.png"):
        Run.open(folder, config(), own(draw("landslide/image/ls_0.png")), folds)
