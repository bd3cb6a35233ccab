"""Steps of an experiment in a process of their own: train a fold, export the bundle, score it."""

from __future__ import annotations

import gc
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from lim_keras.errors import LimKerasError
from lim_keras.reproduction.context import MODELS, RUNS, ReproductionContext
from lim_keras.reproduction.data import ReproductionData
from lim_keras.reproduction.experiments import Experiment, encoder_weights
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.tensorflow_import import load_tensorflow
from lim_keras.training.begin import begin_cross_validation, begin_fit
from lim_keras.training.processes import end_with_parent
from lim_keras.training.record import Sources
from lim_keras.training.run import STATISTICS, Run

FINISH, SCORE = -1, -2
"""Steps after the folds: export the bundle, and score it."""

_ENCODER_COST = {"vgg16": 15.0, "vgg19": 19.0, "mobilenetv2": 1.0, "mobilenet": 1.5, "small": 0.5}
_ENCODER_COST |= {f"efficientnet_lite{size}": cost for size, cost in enumerate((1.2, 1.7, 2.2, 3.2, 5.0))}
_OTHER_COST = 8.0  # networks of 3 to 9 billion multiplications for 224 x 224 px
_FINISH_SHARE = 0.1  # of the pixels of a training

_GARBAGE_THRESHOLD = 50_000  # new objects between two searches for garbage

_MAPS = frozenset(("figure10", "sentinel2"))  # parts that map scenes

_REPORT_S = 0.5  # seconds between two messages


@dataclass(frozen=True, slots=True)
class Step:
    """Step of an experiment: a fold to train, `FINISH` or `SCORE`."""

    experiment: str
    fold: int


@dataclass(frozen=True, slots=True)
class Work:
    """Data, and experiments by name."""

    settings: ReproductionSettings
    data: ReproductionData
    experiments: Mapping[str, Experiment]


@dataclass(frozen=True, slots=True)
class Message:
    """Message of a process: pixels that a step has seen in all, its end, or the reason why it failed."""

    step: Step
    pixels: float = 0.0
    done: bool = False
    failure: str = ""


def step_pixels(experiment: Experiment, step: Step) -> float:
    """Return the pixels that a step sees, weighted by the cost of the encoder; estimated where it depends on data."""
    config = experiment.config
    training = config.training
    images = training.epochs * (training.steps_per_epoch or 500) * training.batch_size
    side = config.sampling.size / config.model.input_reduction
    pixels = images * side**2 * _ENCODER_COST.get(config.model.encoder, _OTHER_COST)
    return pixels if step.fold >= 0 else _FINISH_SHARE * pixels


def work(job: Work, steps: Sequence[Step], threads: int, messages: Connection) -> None:
    """Take the steps in this process; a failure skips the other steps of its experiment only."""
    end_with_parent()
    load_tensorflow()
    import tensorflow as tf

    # Each model of a process traces a function of its own, which TensorFlow takes for one that is traced again.
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # The many objects of imported modules and of graphs live on; searching them for garbage takes long.
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    failed: set[str] = set()
    try:
        for step in steps:
            if step.experiment not in failed:
                failure = _take(job, step, messages)
                failed |= {step.experiment} if failure else set()
                messages.send(Message(step, done=not failure, failure=failure))
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(1) from None  # the parent process reports the interruption


def _take(job: Work, step: Step, messages: Connection) -> str:
    """Take a step; return the reason of a failure, "" if it is done."""
    try:
        _do(job, step, messages)
    except LimKerasError as error:
        return str(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


def _do(job: Work, step: Step, messages: Connection) -> None:
    import keras

    from lim_keras.training.cross_validation import train_fold
    from lim_keras.training.finalize import finalize

    name, out = step.experiment, job.settings.out
    if step.fold == SCORE:
        ReproductionContext(job.settings, job.data, progress=_Silent()).scores(name)
        keras.backend.clear_session()
        return
    experiment = job.experiments[name]
    folder = out / RUNS / name
    begun = (folder / STATISTICS).exists()  # checked before the trainings
    run = Run.load(folder) if begun else open_run(experiment, job.settings, job.data)
    if step.fold == FINISH:
        # The step SCORE scores the bundle on the test tiles. Measured halos make maps of scenes faster.
        maps = bool(experiment.parts & _MAPS)
        finalize(run, out / MODELS / name, score_test_tiles=False, measure=maps)
        return
    reporter = _Reporter(step, step_pixels(experiment, step), messages)
    weights = encoder_weights(experiment, job.settings)
    with _eager(job.settings.budget == "smoke"):
        train_fold(run, step.fold, encoder_weights=weights, progress=reporter)
    keras.backend.clear_session()


def open_run(experiment: Experiment, settings: ReproductionSettings, data: ReproductionData) -> Run:
    """Begin the run of an experiment, or resume it."""
    tiles = data.of(experiment)
    begin = begin_cross_validation if experiment.folds else begin_fit
    return begin(
        experiment.config,
        tiles.tiles,
        run=settings.out / RUNS / experiment.name,
        test_ids=tiles.test_ids,
        sources=Sources.read(experiment.config, encoder_weights=encoder_weights(experiment, settings)),
    )


@contextmanager
def _eager(wanted: bool) -> Iterator[None]:
    """Run functions without a graph: tracing a graph takes longer than the few steps of a smoke test."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Even though the .* option is set")
        tf.config.run_functions_eagerly(wanted)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


class _Silent:
    """Progress that is not shown."""

    @contextmanager
    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> Iterator[None]:
        yield

    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Reporter:
    """Progress of a training, sent to the process that started it."""

    def __init__(self, step: Step, pixels: float, messages: Connection) -> None:
        self._step, self._pixels, self._messages = step, pixels, messages
        self._done, self._total, self._sent = 0, 1, 0.0

    @contextmanager
    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> Iterator[None]:
        self._done, self._total = done, total
        yield

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._sent >= _REPORT_S:
            self._sent = now
            self._messages.send(Message(self._step, self._pixels * self._done / self._total))
