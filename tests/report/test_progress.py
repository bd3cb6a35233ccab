"""The progress bar on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from lim_keras.progress import track
from lim_keras.report.progress import ProgressBar


def bar(terminal: bool, **options: bool) -> tuple[ProgressBar, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    return ProgressBar(console, **options), text


def test_a_log_gets_lines_only() -> None:
    progress, text = bar(terminal=False)
    with progress.begin("scene.tif", 100, unit="px"):
        progress.advance(50, "loss 0.5")
        progress.print("a [line]")
    assert text.getvalue() == "a [line]\n" and not progress.visible


def test_pixels_are_counted_in_percent_and_megapixels() -> None:
    progress, text = bar(terminal=True, transient=False)
    with progress.begin("sc[e]ne.tif", 4_000_000, 1_000_000, unit="px"):
        progress.advance(2_000_000)
    shown = text.getvalue()
    assert "sc[e]ne.tif" in shown and "75 %" in shown and "Mpx/s" in shown


def test_steps_are_counted_with_a_note_that_stays() -> None:
    progress, text = bar(terminal=True, transient=False)
    with progress.begin("fold 2", 24, 8, unit="images"):
        progress.advance(8, "loss 0.2500")
        progress.advance(8)
    last = text.getvalue().split("24/24")[-1]
    assert "images/s" in last and "loss 0.2500" in last


def test_two_tasks_one_after_the_other() -> None:
    progress, text = bar(terminal=True, transient=False)
    for label in ("finding", "matching"):
        assert list(track(range(3), label, 3, progress)) == [0, 1, 2]
    assert text.getvalue().count("3/3") >= 2 and "matching" in text.getvalue()


@pytest.mark.parametrize("transient", [True, False])
def test_the_terminal_is_restored_after_an_error(transient: bool) -> None:
    progress, text = bar(terminal=True, transient=transient)
    with pytest.raises(KeyboardInterrupt), progress.begin("fold 2", 3):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in text.getvalue()  # the cursor is visible again
    progress.advance()  # after the task: ignored


def test_items_pass_without_progress() -> None:
    assert list(track("ab", "letters", 2, None)) == ["a", "b"]
