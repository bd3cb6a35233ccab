"""`lim-keras review` on the real command line: what it says, and what it refuses."""

import re
import signal
import socket
import subprocess
import sys

import geopandas
import httpx
import pytest

from lim_keras import api
from lim_keras.errors import ConfigError, DataError
from tests.review.page.conftest import read_rows, serving, write_away, write_maps


def refused(*arguments, code=1):
    command = [sys.executable, "-m", "lim_keras", "review", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert "Traceback" not in ended.stderr
    return lines[-1]


def test_the_end_is_clean_and_the_review_is_there(maps):
    with serving(maps, "--classes", "slide,lahar") as running:
        assert httpx.get(running.link).status_code == 303
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
        assert running.process.stderr.read() == ""
    assert len(read_rows(maps / "valley_review.gpkg")) == 6


def test_a_taken_port_and_missing_maps_are_named(maps, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(maps, "--port", port, code=2)
        assert f"Received: {port}" in line
        assert "--port" in line
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "_inventory.gpkg" in refused(empty)
    assert not (maps / "valley_review.gpkg").exists()


def test_rasters_that_cannot_be_shown_end_the_command(maps, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("no raster")
    assert "note.txt" in refused(maps, "--before", note, "--port", 0)
    for argument in ("dem", "scene"):
        with pytest.raises(DataError, match=r"note\.txt"):
            api.review_maps(maps, port=0, **{argument: note})


def test_a_raster_of_other_ground_is_left_out_of_some_scenes_and_refused_for_one(maps, tmp_path):
    away = write_away(tmp_path / "away.tif")
    assert "lies elsewhere" in refused(maps, "--before", away, "--port", 0)
    write_maps(maps, "ridge", scene=maps.parent / "valley.tif")
    with serving(maps, "--before", str(away)) as running:
        with httpx.Client(base_url=running.link.partition("/?")[0]) as client:
            client.get(running.link)
            for number in (1, 0, 1):
                assert client.get(f"/?scene={number}").status_code == 200
                assert client.get(f"/scene/{number}/tiles/scene/0/0/0").status_code == 200
                assert client.get(f"/scene/{number}/tiles/before/0/0/0").status_code == 404
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        assert re.search("Warning: .*away.tif.*elsewhere.*without this layer", running.process.stderr.read())


def test_a_scene_that_was_moved_is_left_out_with_a_warning(maps):
    (maps.parent / "valley.tif").rename(maps.parent / "elsewhere.tif")
    with serving(maps) as running:
        with httpx.Client(base_url=running.link.partition("/?")[0]) as client:
            client.get(running.link)
            assert client.get("/scene/0/tiles/scene/0/0/0").status_code == 404
            assert client.get("/scene/0/tiles/probability/0/0/0").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        assert re.search("Warning: .*valley.tif.*--scene", running.process.stderr.read())
    with serving(maps, "--scene", str(maps.parent / "elsewhere.tif")) as running, httpx.Client() as client:
        base = running.link.partition("/?")[0]
        client.get(running.link)
        assert client.get(f"{base}/scene/0/tiles/scene/0/0/0").status_code == 200


def test_an_inventory_without_landslides_and_maps_is_refused_or_shown(maps):
    for name in ("valley_probability.tif", "valley_summary.json"):
        (maps / name).unlink()
    assert "--scene" in refused(maps, "--port", 0, code=2)
    frame = geopandas.read_file(maps / "valley_inventory.gpkg")
    frame.iloc[:0].to_file(maps / "valley_inventory.gpkg", layer="landslides", driver="GPKG")
    (maps / "valley_review.gpkg").unlink(missing_ok=True)
    with serving(maps, "--scene", str(maps.parent / "valley.tif")) as running, httpx.Client() as client:
        base = running.link.partition("/?")[0]
        client.get(running.link)
        assert client.get(f"{base}/").status_code == 200
        assert client.get(f"{base}/scene/0/outlines/0/0/0/9/9").json()["keys"] == []


def test_arguments_of_the_function(maps):
    for port in (-1, 70000, True, "8765"):
        with pytest.raises(ConfigError, match="`port`"):
            api.review_maps(maps, port=port)
    for reviewer in ("", " "):
        with pytest.raises(ConfigError, match="`reviewer`"):
            api.review_maps(maps, port=0, reviewer=reviewer)
