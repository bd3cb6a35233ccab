"""Entry point of `python -m lim_keras`, the same command as `lim-keras`."""

from lim_keras.cli import main

main(prog_name="lim-keras")
