"""What a run says while it trains."""

import io

import pytest
from rich.console import Console

from lim_keras.training.progress import RunProgress

FIGURES = {"loss": 0.5, "val_f1": 0.625, "val_threshold": 0.4, "val_average_precision": 0.7}


def progress(terminal: bool) -> tuple[RunProgress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    return RunProgress("fold 2", epochs=3, steps=2, batch_size=8, console=console), text


def test_a_log_gets_a_line_an_epoch():
    bar, text = progress(terminal=False)
    with bar.shown_from(0):
        bar.on_train_batch_end(0, {"loss": 0.7})
        bar.on_epoch_end(0, FIGURES)
    assert text.getvalue() == "fold 2: epoch 1/3  loss 0.5000  val F1 0.625 at 0.40  average precision 0.700\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_continued_run_says_so(terminal):
    bar, text = progress(terminal)
    with bar.shown_from(2):
        pass
    assert "fold 2: going on after epoch 2 of 3\n" in text.getvalue()
    assert ("4/6" in text.getvalue()) == terminal


def test_a_terminal_gets_a_bar():
    bar, text = progress(terminal=True)
    with bar.shown_from(0):
        for epoch in range(3):
            for step in range(2):
                bar.on_train_batch_end(step, {"loss": 0.25})
            bar.on_epoch_end(epoch, FIGURES)
    shown = text.getvalue()
    assert "6/6" in shown and "loss 0.2500" in shown and "images/s" in shown
    assert "val F1 0.625" in shown


def test_the_terminal_is_given_back_after_an_error():
    bar, text = progress(terminal=True)
    with pytest.raises(KeyboardInterrupt), bar.shown_from(0):
        raise KeyboardInterrupt
    assert text.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is visible again
