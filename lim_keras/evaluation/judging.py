"""Judge a predictor on tiles and on windows, with the settings that it was trained with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from warnings import warn

from rich.console import Console
from rich.progress import track

from lim_keras.config import EvaluationSection
from lim_keras.data.store import TileStore
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.baseline import ImageBlindMask
from lim_keras.evaluation.gallery import Gallery
from lim_keras.evaluation.protocols import tile_predictions, window_predictions
from lim_keras.evaluation.scoring import Evaluation, Prediction, ProtocolName, evaluate
from lim_keras.evaluation.sheets import SheetWindows
from lim_keras.inference.scene import Predict

DEFAULTS = EvaluationSection()


@dataclass(frozen=True, slots=True)
class Judged:
    """The figures of one protocol, and the places to look at."""

    evaluation: Evaluation
    gallery: Gallery


@dataclass(frozen=True)
class Judge:
    """A predictor, and what judging it needs to know of its training.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        threshold: probability from which a pixel is landslide.
        mode, size: section `sampling` of its configuration.
        gsd_m: ground sample distance that it was trained at, metres; None: tiles are left as they are.
        blind: mean mask of its training tiles.
        settings: number of windows and of bootstrap draws.
        seed: of both.
        show_progress: show a bar while predicting.
    """

    predict: Predict
    threshold: float
    mode: Literal["windows", "resized"]
    size: int
    gsd_m: float | None = None
    blind: ImageBlindMask | None = None
    settings: EvaluationSection = DEFAULTS
    seed: int = 2022
    show_progress: bool = False

    def tiles(self, tiles: TileSet) -> Judged:
        """Whole tiles: resized as in training, or at the ground sample distance of training."""
        resized = self.mode == "resized"
        store = TileStore(tiles, cache="none") if resized else self._at_training_scale(tiles)
        size = self.size if resized else None
        return self._judge("tiles", tile_predictions(self.predict, store, size=size, blind=self.blind), len(tiles))

    def windows(self, tiles: TileSet) -> Judged:
        """Random windows of the tiles laid edge to edge, at the ground sample distance of training; see `SheetWindows`.

        A model trained on whole resized tiles is shown the same windows: they are how a scene looks.
        """
        store, count = self._at_training_scale(tiles), self.settings.windows
        windows = SheetWindows(store, self.size, count, self.seed)
        return self._judge("windows", window_predictions(self.predict, windows, count), count)

    def _at_training_scale(self, tiles: TileSet) -> TileStore:
        return TileStore(tiles, self.gsd_m, self.gsd_m, cache="recent")

    def _judge(self, protocol: ProtocolName, predictions: Iterable[Prediction], total: int | None) -> Judged:
        gallery = Gallery(self.threshold)
        shown = track(
            predictions,
            f"{protocol:8}",
            total,
            console=Console(stderr=True),
            disable=not self.show_progress,
            transient=True,
        )
        draws = self.settings.bootstrap
        evaluation = evaluate(gallery.watch(shown), protocol, self.threshold, draws=draws, seed=self.seed)
        return Judged(evaluation, gallery)


def choose_tiles(
    tiles: TileSet, wanted: Sequence[str] | None, *, test: Sequence[str] = (), training: Sequence[str] = ()
) -> TileSet:
    """The tiles to judge on: those asked for, else the run's test tiles, else all that it was not trained on.

    Args:
        tiles: the set.
        wanted: ids asked for; None: not asked.
        test, training: ids of the run's test and training tiles, as far as they are known.

    Raises:
        DataError: an id asked for is not in the set.

    Warns:
        LimKerasWarning: tiles that the model was trained on are among them.
    """
    there, trained = set(tiles.ids), set(training)
    if wanted is not None:
        chosen = list(wanted)
    else:
        chosen = [tile_id for tile_id in test if tile_id in there]
        chosen = chosen or [tile_id for tile_id in tiles.ids if tile_id not in trained] or list(tiles.ids)
    if not chosen:
        raise DataError("No tile to judge on. Expected at least one id. Received: an empty list")
    seen = [tile_id for tile_id in chosen if tile_id in trained]
    if seen:
        warn(
            f"{len(seen)} of {len(chosen)} tiles were used in training (such as {seen[0]}): their figures are no test.",
            LimKerasWarning,
            stacklevel=2,
        )
    return tiles.subset(chosen)
