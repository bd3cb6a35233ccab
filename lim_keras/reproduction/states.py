"""States of the experiments on the disk: finished, begun or missing, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.replaceable import check_bundle_folder
from lim_keras.errors import BundleError, DataError, LimKerasError
from lim_keras.reproduction.context import MODELS, RUNS
from lim_keras.reproduction.data import LabelledTiles, ReproductionData
from lim_keras.reproduction.experiments import Experiment, encoder_weights
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.seals import is_sealed
from lim_keras.tensorflow_import import load_tensorflow
from lim_keras.training.record import RunRecord, Sources, bundle_digest
from lim_keras.training.run import SUMMARIES, check_begun

_KERAS = b"\x89HDF\r\n\x1a\n", "Keras weights (.weights.h5)"
_ARRAYS = b"PK\x03\x04", "arrays (.npz)"
"""First bytes and content of the files of encoder weights; the latter of EfficientNet-Lite."""


@dataclass(frozen=True, slots=True)
class State:
    """State of an experiment.

    Attributes:
        experiment: the experiment.
        bundle: digest of its bundle; "" if it is not finished.
    """

    experiment: Experiment
    bundle: str = ""


def check_weights(experiments: Sequence[Experiment], settings: ReproductionSettings) -> None:
    """Check the files of encoder weights that the experiments will read.

    Raises:
        DataError: a file is missing or no file of weights.
    """
    for one in experiments:
        given = encoder_weights(one, settings)
        with _naming(one):
            Sources.read(one.config, encoder_weights=given)
        if given is not None and given not in ("imagenet", "none"):
            encoder = one.config.model.encoder
            start, content = _ARRAYS if encoder.startswith("efficientnet_lite") else _KERAS
            with Path(given).open("rb") as file:
                if file.read(len(start)) != start:
                    raise DataError(
                        f"{given}: expected a file of {content} as weights of {encoder}. Received: another file."
                    )


def check_encoders(experiments: Sequence[Experiment], settings: ReproductionSettings, data: ReproductionData) -> None:
    """Build the encoders of experiments that have not begun, with their weights, which downloads missing ones.

    Raises:
        ModelError: weights do not fit their encoder, or cannot be downloaded.
    """
    new = [one for one in experiments if not (settings.out / RUNS / one.name).exists()]
    kinds = {
        (one.config.model.encoder, encoder_weights(one, settings) or one.config.model.encoder_weights): one
        for one in reversed(new)
    }
    for (encoder, weights), one in kinds.items():
        if weights == "none":
            continue
        load_tensorflow()
        from lim_keras.models.encoders import build_encoder

        with _naming(one):
            build_encoder(encoder, data.of(one).tiles.bands, weights)


@contextmanager
def _naming(experiment: Experiment) -> Iterator[None]:
    """Name, in errors, the argument that gives the weights of an experiment."""
    argument = "encoder_weights" if experiment.name.startswith("whole_") else "edge_weights"
    try:
        yield
    except LimKerasError as error:
        raise type(error)(str(error).replace("`encoder_weights`", f"`{argument}`")) from error


def read_states(
    experiments: Sequence[Experiment], settings: ReproductionSettings, data: ReproductionData
) -> dict[str, State]:
    """Return the state of each experiment, by name.

    Raises:
        LimKerasError: a folder holds a run of another configuration or of other data, or files of the user.
    """
    sources: dict[tuple[str, str | None], Sources] = {}
    states = {}
    for one in experiments:
        given = encoder_weights(one, settings)
        key = one.config.model.encoder_weights, given
        if key not in sources:
            sources[key] = Sources.read(one.config, encoder_weights=given)
        try:
            with _naming(one):
                states[one.name] = State(one, _finished(one, settings.out, data.of(one), sources[key]))
        except LimKerasError as error:
            raise type(error)(str(error).replace("as `run`", "as `out`")) from error
    return states


def _finished(experiment: Experiment, out: Path, tiles: LabelledTiles, sources: Sources) -> str:
    """Return the digest of the bundle of a finished experiment; "" if there is something left to do."""
    run, model = out / RUNS / experiment.name, out / MODELS / experiment.name
    check_bundle_folder(model, "out")
    present = RunRecord({}, tiles.contents, sources)
    if not check_begun(run, experiment.config, tiles.tiles, present, tiles.test_ids):
        return ""
    if not is_sealed(run / SUMMARIES[not experiment.folds]):
        return ""
    try:
        info = BundleInfo.read(model)
    except BundleError:
        return ""
    return bundle_digest(info) if info.config_hash == experiment.config.digest() else ""


def bundles(states: Mapping[str, State]) -> dict[str, str]:
    """Return the digests of the finished bundles, by experiment."""
    return {name: state.bundle for name, state in states.items() if state.bundle}
