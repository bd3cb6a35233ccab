"""A review in QGIS: its form and colours, and what it writes."""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import cv2
import pytest

from tests.review.conftest import square


def _python_of_qgis() -> str:
    """Return a Python that can import QGIS; skip the test where there is none."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or subprocess.run([python, "-c", "import qgis.core"], capture_output=True).returncode:
        pytest.skip("there is no QGIS with Python on this machine")
    return python


def _run(review: Path, picture: Path, tmp_path: Path) -> dict:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path), "TZ": "Asia/Kathmandu"}
    command = [_python_of_qgis(), str(Path(__file__).with_name("in_qgis.py")), str(review), str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_verdicts_in_qgis_come_back_with_reviewer_and_utc(scene, tmp_path):
    with scene.open_review("Anna") as store:
        store.judge([2], "unsure")
        first = store.landslides()
        tmp_path.chmod(0o700)
        shown = _run(scene.review, tmp_path / "qgis.png", tmp_path)  # the store stays open meanwhile
        assert shown["valid"] == [True] * 3
        assert shown["renderers"] == ["categorizedSymbol", "singleSymbol", "singleSymbol"]
        assert shown["categories"] == ["accepted", "rejected", "unsure", ""]
        assert shown["editable"] == ["status", "class", "note"]
        assert shown["lists"]["status"] == ["", "accepted", "rejected", "unsure"]
        assert shown["lists"]["class"] == ["", "slide", "debris flow", "rockfall", "other"]
        assert (shown["committed"], shown["searched"], shown["model"]) == (True, True, False)

        rows = {row["fid"]: row for row in store.landslides()}
        assert sorted(rows) == [1, 2, 4]
        assert (rows[1]["status"], rows[1]["note"]) == ("rejected", "Straße")
        assert rows[1]["reviewer"] == rows[2]["reviewer"] == rows[4]["reviewer"] != "Anna"
        # Kathmandu is 5:45 hours ahead of UTC
        age = datetime.now(UTC) - datetime.fromisoformat(rows[1]["reviewed"])
        assert abs(age.total_seconds()) < 120
        assert rows[1]["reviewed"].endswith("Z")
        assert (rows[4]["origin"], rows[4]["status"], rows[4]["id"]) == ("drawn", "accepted", 4)
        assert (rows[2]["edited"], rows[2]["area_m2"]) == (1, None)
        assert store.measure_missing() == 2
        measured = {row["fid"]: row for row in store.landslides()}
        assert measured[4]["area_m2"] == pytest.approx(400, rel=2e-3)
        assert measured[2]["area_m2"] == pytest.approx(measured[2]["geometry"].area, rel=2e-3)
        (cell,) = store.searched()
        assert cell["reviewer"] == rows[1]["reviewer"]

        name = rows[1]["reviewer"]
        lines = [(line.action, line.reviewer, line.program) for line in store.log()[1:]]
        assert sorted(lines) == sorted(
            [
                ("verdict", name, "other"),
                ("note", name, "other"),
                ("edit", name, "other"),
                ("draw", name, "other"),
                ("delete", "", "other"),
                ("searched", name, "other"),
            ]
        )
        assert name in [one.name for one in store.others()]
    with scene.open_review(name) as store:
        while store.undo() is not None:
            pass
        assert store.landslides() == first
        assert store.searched() == []


def test_qgis_colours_landslides_by_status(scene, tmp_path):
    with scene.open_review("Anna") as store:
        store.judge([2], "unsure")
        store.draw(square(10, 60, 20, 20))
    tmp_path.chmod(0o700)
    _run(scene.review, tmp_path / "qgis.png", tmp_path)
    blue, green, red = (band.astype(int) for band in cv2.split(cv2.imread(str(tmp_path / "qgis.png"))))
    # accepted green, rejected red, unsure yellow, each on hundreds of pixels
    assert ((green > red + 20) & (green > blue + 10)).sum() > 500
    assert ((red > green + 20) & (red > blue + 20) & (abs(green - blue) < 30)).sum() > 500
    assert ((red > blue + 40) & (green > blue + 30)).sum() > 500
