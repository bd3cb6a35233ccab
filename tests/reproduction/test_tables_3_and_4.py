"""Tables 3 and 4 from counts that are worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from lim_keras.metrics.binary import Estimate
from lim_keras.report.documents import report_markdown, report_page
from lim_keras.report.html import render_page
from lim_keras.report.parts import Part, Table
from lim_keras.reproduction import paper
from lim_keras.reproduction.table3 import make_table3
from lim_keras.reproduction.table4 import make_table4
from tests.reproduction.hand_made import MadeContext, evaluation, experiment

FL = evaluation([(60, 20, 20, 900), (20, 20, 20, 940)], [(0, 40, 0, 960)], blind=(50, 50, 50, 850))
FLK = evaluation([(70, 10, 10, 910), (30, 10, 10, 950)], [(0, 0, 0, 1000)], blind=(50, 50, 50, 850))
MEMBERS = {0: evaluation([(60, 20, 20, 900), (20, 20, 20, 940)]), 1: evaluation([(70, 10, 10, 910), (10, 30, 30, 930)])}


def table(part: Part, name: str) -> Table:
    return next(one for one in part.tables if one.name == name)


def column(of: Table, name: str) -> dict[object, object]:
    number = of.columns.index(name)
    return {row[0]: row[number] for row in of.rows}


def value(cell: object) -> float:
    assert isinstance(cell, Estimate)
    return cell.value


def test_table_3_has_our_scores_the_paper_and_the_image_blind_mask() -> None:
    flk = experiment("whole_fcn_flk", FLK, folds=2, members=MEMBERS)
    part = make_table3(MadeContext(experiment("whole_fcn_fl", FL), flk, scene=Path("scene.tif")))
    whole = table(part, "table3_whole")
    members = "single models of FCN-FLK, mean score"
    assert whole.columns[1:6] == ("image-blind mask", "FCN", "FCN-FL", "FCN-FLK", members)
    assert [row[0] for row in whole.rows] == ["accuracy", "precision", "recall", "F1", "mIoU", "IoU of landslides"]
    ours, blind = column(whole, "FCN-FLK"), column(whole, "image-blind mask")
    # Landslide tiles alone: tp 100, fp 20, fn 20, tn 1860 of 2000.
    expected = (1960 / 2000, 100 / 120, 100 / 120, 200 / 240, (100 / 140 + 1860 / 1900) / 2, 100 / 140)
    assert [value(cell) for cell in ours.values()] == pytest.approx(expected)
    assert value(blind["F1"]) == pytest.approx(0.5)
    # Single models: F1 160 / (160 + 80) and 160 / (160 + 80), both 2/3 of the pooled counts.
    assert value(column(whole, members)["F1"]) == pytest.approx(2 / 3)
    assert set(column(whole, "FCN").values()) == {"not trained"}
    assert whole.columns[6:] == ("FCN, the paper", "FCN-FL, the paper", "FCN-FLK, the paper")
    printed = column(whole, "FCN, the paper")
    assert (printed["F1"], printed["precision"]) == (0.53, pytest.approx(0.434, abs=5e-4))
    assert whole.sources == {"whole_fcn_fl": "hash of whole_fcn_fl", "whole_fcn_flk": "hash of whole_fcn_flk"}
    text = " ".join(part.text)
    assert "FCN-FLK less this mean is .167 [" in text and "The interval lies above 0." in text
    assert "FCN-FLK is not trained on windows (mobilenetv2)." in text and "not the luck of training" in text
    assert set(column(table(part, "table3_windows"), "FCN-FLK").values()) == {"not trained"}


def test_scores_on_the_scene() -> None:
    context = MadeContext(experiment("whole_fcn_flk", FLK), scene=Path("scene.tif"))
    rows = table(make_table3(context), "table3_scene").rows
    assert rows[0][1] == "everything is a landslide"
    whole = next(row for row in rows if row[:2] == ("whole tiles (vgg16)", "FCN-FLK"))
    # All tiles: tp 100, fp 20, fn 20; ten mapped landslides, eight found, twenty drawn, nine right.
    assert value(whole[4]) == pytest.approx(200 / 240) and whole[-4:] == (10, 8, 20, 9)
    assert next(row for row in rows if row[:2] == ("windows (mobilenetv2)", "FCN"))[2] == "not trained"


def test_a_scene_of_one_block_has_no_intervals() -> None:
    block = evaluation([(6, 2, 2, 90)], protocol="scene")
    part = make_table3(MadeContext(experiment("whole_fcn", FL, scene=block), scene=Path("scene.tif")))
    scene = table(part, "table3_scene")
    (f1,) = (row[4] for row in scene.rows if row[1] == "FCN" and isinstance(row[4], Estimate))
    assert f1.value == pytest.approx(12 / 16) and f1.low != f1.low
    assert any("[- -]" in note for note in scene.notes)


def test_without_a_scene_the_report_says_what_adds_it() -> None:
    flk = replace(experiment("whole_fcn_flk", FLK), scene=None, detections=None)
    for make in (make_table3, make_table4):
        part = make(MadeContext(flk))
        assert any("add `--scene` and `--truth`" in line for line in part.text)
        assert not any(one.name.endswith("scene") for one in part.tables)
    assert any("add `--transfer`" in line for line in part.text)


def test_table_4_compares_decoders_in_pairs() -> None:
    unet = experiment("whole_unet", FL)
    part = make_table4(MadeContext(experiment("whole_fcn_flk", FLK), unet, scene=Path("scene.tif")))
    rows = {row[:3]: row[3:] for row in table(part, "table4_differences").rows}
    tiles, windows, scene, transfer = rows["whole tiles (vgg16)", "FCN-FLK", "U-Net"]
    # Landslide tiles: 200 / 240 less 160 / 240. All samples: the other tile adds 40 false positives, 160 / 280.
    assert value(tiles) == pytest.approx(1 / 6) and transfer is None
    assert value(windows) == value(scene) == pytest.approx(200 / 240 - 160 / 280)
    assert rows["whole tiles (vgg16)", "FCN-FL", "U-Net"] == ("not trained", None, None, None)
    whole = table(part, "table4_whole")
    assert column(whole, "FCN-FLK, the paper")["recall"] == 0.76
    assert any("P7" in note for note in whole.notes)


def test_transfer_tiles_have_their_own_table() -> None:
    away = evaluation([(10, 10, 10, 70)], [(0, 5, 0, 95)], blind=(20, 60, 0, 20))
    context = MadeContext(experiment("windows_unet", FL, transfer=away))
    rows = {row[:2]: row[2:] for row in table(make_table4(context), "table4_transfer").rows}
    unet = rows["windows (mobilenetv2)", "U-Net"]
    assert [value(cell) for cell in unet[:4]] == pytest.approx([0.8, 0.5, 0.5, 0.5])
    assert value(rows["windows (mobilenetv2)", "image-blind mask"][3]) == pytest.approx(40 / 100)
    assert rows["windows (mobilenetv2)", "SegNet"][0] == "not trained"


def test_nothing_is_trained() -> None:
    for make in (make_table3, make_table4):
        part = make(MadeContext())
        assert "not trained" in report_markdown([part], "Report") and part.text
        assert "not trained" in render_page(report_page([part], "Report"))


def test_the_papers_column_fcn_does_not_agree_with_itself() -> None:
    # Of 1000 px, 75 landslides at recall .76: 57 found, 18 missed, 52 false, 873 right: IoU 57 / 127 and 873 / 943.
    assert paper.implied_miou(paper.TABLE_3["fcn_flk"]) == pytest.approx((57 / 127 + 873 / 943) / 2, abs=2e-3)
    for table_of in (paper.TABLE_3, paper.TABLE_4):
        for method, scores in table_of.items():
            agrees = abs(paper.implied_miou(scores) - scores["miou"]) < 0.015
            assert agrees == (method != "fcn"), method
