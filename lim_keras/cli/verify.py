"""`lim-keras verify`: whether a bundle is still what was exported."""

import sys
from pathlib import Path

import click

from lim_keras.cli.startup import load_tensorflow


@click.command()
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
def verify(bundle: Path) -> None:
    """Check BUNDLE (exported_models/NAME): every file, every model's signature, and a stored image's answer.

    One line for each difference on standard error, and exit code 1 where there is any. Nothing of the bundle runs but
    TensorFlow graphs whose files are as recorded.
    """
    from lim_keras.export.bundle_info import BundleInfo

    files = len(BundleInfo.read(bundle).files)
    load_tensorflow()
    from lim_keras.export.verify import verify_bundle

    differences = verify_bundle(bundle)
    for line in differences:
        click.echo(f"Difference: {line}", err=True)
    if differences:
        sys.exit(1)
    click.echo(f"{bundle}: {files} files, signatures and the stored answer are as exported.")
