"""Commands `export`, `info` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lim_keras.tensorflow_import import load_tensorflow

VARIANTS = ("float32", "float16", "dynamic", "int8")

_OF_TFLITE = {
    "tile": "--tile",
    "fold": "--fold",
    "data": "--data",
    "tiles": "--tiles",
    "allow_drop": "--allow-drop",
    "out": "--out",
    "threads": "--threads",
}

_OF_SERVING = {"base_path": "--base-path", "promote": "--promote"}


class VariantsType(click.ParamType):  # type: ignore[type-arg]
    """Kinds of numbers, separated by commas."""

    name = "KIND,KIND,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to variants, each once."""
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not set(kinds) <= set(VARIANTS):
            self.fail(f"{value!r}: expected some of {','.join(VARIANTS)}", param, ctx)
        return kinds


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tflite", type=VariantsType(), help=f"LiteRT files to make: {','.join(VARIANTS)}.")
@click.option(
    "--tile", type=click.IntRange(1), help="Pixels a side of their windows, the only ones they take [default: any]."
)
@click.option("--fold", type=click.IntRange(0), help="Export this fold alone [default: the ensemble, as one file].")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Tiles, to calibrate int8 and to test.")
@click.option(
    "--tiles",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ids of the tiles to test on, one a line. Default: the test tiles, else all not trained on.",
)
@click.option("--allow-drop", is_flag=True, help="Keep files that differ from the SavedModel beyond their limit.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder [default: BUNDLE/tflite].")
@click.option("--threads", type=click.IntRange(1), help="Of LiteRT [default: one a core].")
@click.option(
    "--serving",
    type=click.Path(file_okay=False, path_type=Path),
    help="Model repository for TensorFlow Serving, to which a version is added.",
)
@click.option("--base-path", help="Where the server sees --serving's folder [default: /models, as in a container].")
@click.option("--promote", is_flag=True, help="Make the newest version in --serving's folder stable.")
def export(
    bundle: Path,
    tflite: tuple[Any, ...] | None,
    serving: Path | None,
    base_path: str | None,
    promote: bool,
    **lite: Any,
) -> None:
    """Export BUNDLE (exported_models/NAME) to LiteRT files, to a TensorFlow Serving repository, or to both.

    --tflite: LiteRT (TFLite) files, which need no TensorFlow. Each is run on the test tiles and compared with the
    SavedModel; one that differs more than its kind may is refused.

    --serving: a model repository for TensorFlow Serving, with version labels, warm-up requests and a compose file.
    Given both, the files are made first, and no version is added where one of them fails or is refused.
    """
    _check_options(tflite, serving, {**lite, "base_path": base_path, "promote": promote})
    load_tensorflow()
    # Files that are made again replace the old ones, but a repository gets one more version: so it comes last.
    if tflite is not None:
        _export_tflite(bundle, tflite, **lite)
    if serving is not None:
        from lim_keras.export.serving_repository import MODELS_FILE, export_serving
        from lim_keras.report.bundle_tables import serving_table
        from lim_keras.report.tables import print_result

        served = export_serving(bundle, serving, base_path, promote)
        done = "labels moved" if served.added is None else f"version {served.added} added"
        table = serving_table(served.folder / MODELS_FILE, served.models, served.served)
        print_result([table, f"{done}: {served.folder}"])


def _check_options(tflite: tuple[Any, ...] | None, serving: Path | None, given: dict[str, Any]) -> None:
    if tflite is None and serving is None:
        raise click.UsageError("Missing option '--tflite' or '--serving': say what to make.")
    for wanted, options, asked in (("--tflite", _OF_TFLITE, tflite), ("--serving", _OF_SERVING, serving)):
        chosen = [option for name, option in options.items() if given[name] not in (None, False)]
        if asked is None and chosen:
            raise click.UsageError(f"{', '.join(chosen)}: only with {wanted}.")
    if given["tiles"] is not None and given["data"] is None:
        raise click.UsageError("--tiles names tiles of --data; give both.")
    if "int8" in (tflite or ()) and given["data"] is None:
        raise click.UsageError("--tflite int8 is calibrated on training tiles, landslides among them: give --data.")


def _export_tflite(bundle: Path, variants: tuple[Any, ...], tiles: Path | None, **options: Any) -> None:
    from lim_keras.data.tiles import read_tile_ids
    from lim_keras.export.tflite import LiteRtOptions, export_litert
    from lim_keras.report.bundle_tables import litert_table
    from lim_keras.report.tables import print_result

    ids = None if tiles is None else tuple(read_tile_ids(tiles))
    result = export_litert(bundle, LiteRtOptions(variants, test_ids=ids, **options))
    print_result([litert_table(result.figures, result.refused), f"folder: {result.folder}"])
    if result.refused:
        click.echo(
            f"Error: refused, beyond the limit: {', '.join(result.refused)}. --allow-drop keeps such files.", err=True
        )
        sys.exit(1)


@click.command()
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
def info(bundle: Path) -> None:
    """Print what BUNDLE (exported_models/NAME) says of itself: model, data, scores, files. Nothing is loaded."""
    from lim_keras.bundle.info import BundleInfo
    from lim_keras.report.bundle_tables import info_tables
    from lim_keras.report.tables import print_result

    print_result(info_tables(BundleInfo.read(bundle)))


@click.command()
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
def verify(bundle: Path) -> None:
    """Check BUNDLE (exported_models/NAME): every file, every model's signature, and a stored image's answer.

    One line for each difference on standard error, and exit code 1 where there is any. Nothing of the bundle runs but
    TensorFlow graphs whose files are as recorded.
    """
    from lim_keras.bundle.info import BundleInfo

    files = len(BundleInfo.read(bundle).files)
    load_tensorflow()
    from lim_keras.bundle.verify import verify_bundle

    differences = verify_bundle(bundle)
    for line in differences:
        click.echo(f"Difference: {line}", err=True)
    if differences:
        sys.exit(1)
    click.echo(f"{bundle}: {files} files, signatures and the stored answer are as exported.")
