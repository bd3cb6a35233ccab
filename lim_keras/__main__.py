"""`python -m lim_keras` is `lim-keras`."""

from lim_keras.cli import main

main(prog_name="lim-keras")
