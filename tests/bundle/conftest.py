"""Fixtures of tests/inference, for models that predict scenes."""

from tests.inference.conftest import tiny, write

__all__ = ["tiny", "write"]
