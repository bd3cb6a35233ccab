"""Tests of the HTML page."""

from lim_keras.report.html import Block, Figure, Page, Picture, Section, render_page


def test_words_between_backticks_are_code_and_text_is_escaped() -> None:
    block = Block("Title", lines=["Use `data tile --size` with <b>."])
    html = render_page(Page("Page", (), [Section("Part", "part", [block])]))
    assert "<p>Use <code>data tile --size</code> with &lt;b&gt;.</p>" in html


def test_captions_have_code_too() -> None:
    figure = Figure([Picture("data:,", 1, 1, "Tile")], "Tile `a_1`, <b>.")
    html = render_page(Page("Page", (), [Section("Part", "part", [Block("Title", figures=[figure])])]))
    assert "<figcaption>Tile <code>a_1</code>, &lt;b&gt;.</figcaption>" in html
