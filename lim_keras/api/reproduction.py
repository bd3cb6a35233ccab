"""Public function that reproduces the paper."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, get_args

from lim_keras.api.arguments import as_count, as_path, public
from lim_keras.api.places import locked
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import require_tensorflow

if TYPE_CHECKING:
    from lim_keras.config import EncoderName
    from lim_keras.progress import ProgressCallback
    from lim_keras.reproduction.reproduce import ReproductionResult
    from lim_keras.reproduction.settings import Budget, ReproductionSettings


@public
def reproduce(
    out: StrPath,
    *,
    data: StrPath | None = None,
    test_ids: StrPath | None = None,
    scene: StrPath | None = None,
    truth: StrPath | None = None,
    transfer: StrPath | None = None,
    coarse: StrPath | None = None,
    coarse_test: StrPath | None = None,
    coarse_scene: StrPath | None = None,
    budget: Budget = "cpu",
    encoder: EncoderName | None = None,
    encoder_weights: str | None = None,
    edge_weights: str | None = None,
    only: Collection[str] = (),
    jobs: int | None = None,
    train: bool = True,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> ReproductionResult:
    """Reproduce Chen et al. 2022: train its models and their ablation, and write every table and figure in one report.

    What is finished is never trained again: a repeated call with the same arguments goes on where an earlier one ended.
    The trainings run in processes that import the calling script, so a script must guard the call with
    `if __name__ == "__main__":`.

    Args:
        out: folder of all results.
        data: tiles, a folder or a tiles.csv; None: synthetic tiles and scenes, with the budget "smoke" only.
        test_ids: file with the ids of the test tiles, one a line; None: a tenth of the tiles, drawn by group.
        scene: scene that no tile was cut from; it needs `truth`. None: no scene is mapped.
        truth: mapped landslides of the scene, polygons or a raster of labels.
        transfer: tiles of another region, on which the models are evaluated; None: none.
        coarse: tiles of about 10 m, for a model that is trained at this distance; None: none.
        coarse_test: file with the ids of the test tiles of `coarse`; None: a tenth of them.
        coarse_scene: scene of about 10 m, which both models map; None: none.
        budget: "smoke" (minutes; no results to rely on), "evening" or "cpu" (an evening or a night on two cores) or
            "gpu" (the full configurations).
        encoder: encoder of the models on whole tiles; None: vgg16, for "smoke" the small one.
        encoder_weights: weights of `encoder`: "imagenet", "none" or a file; None: imagenet.
        edge_weights: weights of MobileNetV2, which all other models have, as `encoder_weights`.
        only: names of the parts to make, such as "table3"; empty: all.
        jobs: number of models trained at a time; None: 1, for "smoke" 2.
        train: train what is missing; False: report what is trained so far.
        wait: wait for the end of another call that works in the same folder; False: raise an error.
        progress: receives the progress; None: a bar on a terminal.

    Returns:
        Folder, parts, and what failed; a model that fails does not stop the others.

    Raises:
        ConfigError: an argument is invalid.
        DataError: data or weights cannot be used, or files of the user would be replaced.
        LeakError: a test tile shares ground, files or groups with other tiles.
        TrainingError: the folder holds runs of another configuration or of other data.

    Examples:
        >>> lk.reproduce("paper", data="bijie", test_ids="bijie/test_tiles.txt", only=["table3"]).parts
    """
    require_tensorflow()
    from lim_keras.reproduction.settings import ReproductionSettings

    folder = as_path("out", out)
    files = {
        "test_ids": test_ids,
        "scene": scene,
        "truth": truth,
        "transfer": transfer,
        "coarse": coarse,
        "coarse_test": coarse_test,
        "coarse_scene": coarse_scene,
    }
    paths = {name: None if value is None else as_path(name, value) for name, value in files.items()}
    settings = ReproductionSettings(
        out=folder,
        data=folder if data is None else as_path("data", data),
        budget=budget,
        encoder=encoder or ("small" if budget == "smoke" else "vgg16"),
        encoder_weights=encoder_weights,
        edge_weights=edge_weights,
        only=frozenset([only] if isinstance(only, str) else only),
        jobs=_default_jobs(budget) if jobs is None else as_count("jobs", jobs),
        train=train,
        **paths,
    )
    _check(settings, synthetic=data is None)
    new = not folder.exists()
    with locked(folder, "out", wait=wait):
        from lim_keras.reproduction.reproduce import reproduce as run

        try:
            return run(settings, synthetic=data is None, progress=progress)
        finally:
            if new:
                with suppress(OSError):
                    folder.rmdir()  # a call that was refused leaves no empty folder


def _default_jobs(budget: Budget) -> int:
    return min(2, os.cpu_count() or 1) if budget == "smoke" else 1


def _check(settings: ReproductionSettings, *, synthetic: bool) -> None:
    """Check the arguments with each other, before any work."""
    from lim_keras.config import EncoderName
    from lim_keras.reproduction.settings import PARTS, Budget

    for name, value, expected in (
        ("budget", settings.budget, get_args(Budget)),
        ("encoder", settings.encoder, get_args(EncoderName)),
        *(("only", part, PARTS) for part in sorted(settings.only)),
    ):
        if value not in expected:
            raise ConfigError(
                f"Invalid value for argument `{name}`. Expected one of {', '.join(expected)}. Received: {value}"
            )
    names = ("test_ids", "scene", "truth", "transfer", "coarse", "coarse_test", "coarse_scene")
    given = [name for name in names if getattr(settings, name) is not None]
    if synthetic and settings.budget != "smoke":
        raise ConfigError("Missing argument `data`. Only the budget smoke makes its own tiles. Give tiles as `data`.")
    if synthetic and given:
        raise ConfigError(f"Argument `{given[0]}` needs tiles of your own. Give them as `data`, or leave it out.")
    for name, other in (("scene", "truth"), ("truth", "scene"), ("coarse_test", "coarse"), ("coarse_scene", "coarse")):
        if name in given and other not in given:
            raise ConfigError(f"Argument `{name}` needs `{other}`. Give both, or neither.")
