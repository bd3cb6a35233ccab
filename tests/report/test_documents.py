"""Parts of a report as CSV, JSON, Markdown and HTML: values worked by hand, and files of the user."""

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lim_keras.errors import DataError
from lim_keras.metrics.binary import Estimate
from lim_keras.report import style
from lim_keras.report.documents import check_report_files, format_value, write_report
from lim_keras.report.parts import Drawing, Part, Table
from lim_keras.seals import is_sealed

PICTURE = np.zeros((4, 6, 3), np.uint8) + np.uint8([200, 100, 0])


def parts(f1: float = 0.681) -> list[Part]:
    chart = style.new_figure(2, 1)
    chart.subplots().plot([1, 2])
    table = Table(
        "table3",
        "Table 3",
        ("model", "F1", "pixels", "share"),
        (
            ("FCN | FL", Estimate(f1, 0.612, 0.743), 12345, 0.25),
            ("blank", 0.62, None, math.nan),
        ),
        ("A note on `iou_landslide`.",),
        {"whole_fcn": "0123456789abcdef"},
    )
    drawings = (Drawing("table3_chart", "A chart.", chart), Drawing("table3 picture", "A <picture>.", PICTURE))
    return [Part("table3", "Scores", ("*No* [link](x) 山.",), (table,), drawings), Part("claims", "Claims")]


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_files(tmp_path: Path) -> None:
    written = write_report(parts(), tmp_path, title="Report", summary=["One line."])
    names = ["report.html", "report.md", "tables/table3.csv", "tables/table3.json"]
    names += ["figures/table3_chart.png", "figures/table3 picture.png"]
    assert sorted(written) == sorted(tmp_path / name for name in names)
    with (tmp_path / "tables/table3.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["model", "F1", "F1_low", "F1_high", "pixels", "share"],
        ["FCN | FL", "0.681", "0.612", "0.743", "12345", "0.25"],
        ["blank", "0.62", "", "", "", ""],  # NaN, as an empty cell, has no number
    ]
    values = json.loads((tmp_path / "tables/table3.json").read_text())
    assert values["rows"][0][1] == {"value": 0.681, "low": 0.612, "high": 0.743}
    assert values["rows"][1] == ["blank", 0.62, None, None]
    assert values["sources"] == {"whole_fcn": "0123456789abcdef"}
    picture = cv2.imread(str(tmp_path / "figures/table3 picture.png"))
    np.testing.assert_array_equal(picture[..., ::-1], PICTURE)
    assert all(is_sealed(tmp_path / name) for name in names if not name.endswith(".csv"))


def test_markdown(tmp_path: Path) -> None:
    write_report(parts(), tmp_path, title="Report")
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "| model | F1 | pixels | share |" in lines
    assert "| --- | ---: | ---: | ---: |" in lines
    assert "| FCN \\| FL | .681 [.612\N{NO-BREAK SPACE}.743] | 12,345 | .250 |" in lines
    assert "| blank | .620 |  | - |" in lines
    assert r"\*No\* [link]\(x) 山." in lines
    assert "![table3 picture](figures/table3%20picture.png)" in lines
    assert r"A \<picture\>." in lines
    assert r"Configurations: whole\_fcn 01234567." in lines


def test_page_is_one_file_with_all_pictures(tmp_path: Path) -> None:
    write_report(parts(), tmp_path, title="Report")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    page = Page(text)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2
    assert all(one["src"].startswith("data:image/") and one["alt"] for one in pictures)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {"#table3", "#claims"}
    assert {"table3", "claims"} <= {attributes.get("id") for _, attributes in page.tags}
    assert "A <picture>." in page.text and "A note on iou_landslide." in page.text


def test_short_texts_stay_on_one_line_and_long_ones_get_room(tmp_path: Path) -> None:
    claim = "The symmetric decoder maps landslides better."
    table = Table("claims", "Claims", ("claim", "verdict", "F1"), ((claim, "holds (1 seed)", 0.5),))
    write_report([Part("claims", "Claims", (), (table,))], tmp_path, title="Report")
    cells = [one.get("class") for tag, one in Page((tmp_path / "report.html").read_text()).tags if tag == "td"]
    assert cells == ["text", "short", "number"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("a", "a"),
        (1234, "1,234"),
        (0.6814, ".681"),
        (1.0, "1.000"),
        (-0.031, "-.031"),
        (35.62, "35.62"),
        (812.34, "812.3"),
        (1.7e7, "17,000,000"),
        (0.0004, "0.0004"),
        (math.inf, "-"),
        (0.0, ".000"),
    ],
)
def test_format_value(value: float, text: str) -> None:
    assert format_value(value) == text


def test_a_second_call_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    write_report(parts(), tmp_path, title="Report")
    check_report_files(tmp_path, ["table3", "claims"], "out")
    write_report(parts(0.7), tmp_path, title="Report")
    table = tmp_path / "tables/table3.csv"
    assert "0.7,0.612" in table.read_text()
    written = table.read_text()
    for name in ("tables/table3.csv", "report.md", "figures/table3_chart.png"):
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content + b"mine")
        with pytest.raises(DataError, match=rf"{path.name} \(.*give another folder as `out`"):
            check_report_files(tmp_path, ["table3"], "out")
        with pytest.raises(DataError, match="Nothing was replaced"):
            write_report(parts(0.8), tmp_path, title="Report")
        path.write_bytes(content)
    assert table.read_text() == written
    (tmp_path / "tables/mine.csv").write_text("my own")
    check_report_files(tmp_path, ["table3"], "out")


def test_a_kill_between_the_files_of_a_table(tmp_path: Path) -> None:
    write_report(parts(), tmp_path, title="Report")
    old = (tmp_path / "tables/table3.csv").read_text()
    write_report(parts(0.7), tmp_path, title="Report")
    (tmp_path / "tables/table3.csv").write_text(old)  # as it was when the JSON file was written
    write_report(parts(0.7), tmp_path, title="Report")
    assert "0.7,0.612" in (tmp_path / "tables/table3.csv").read_text()


def test_two_tables_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one name"):
        write_report([*parts(), *parts()], tmp_path, title="Report")


def test_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="table3: expected 2 values"):
        Table("table3", "", ("a", "b"), ((1,),))
