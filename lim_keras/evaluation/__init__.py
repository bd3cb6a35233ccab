"""Evaluation protocols, scores with intervals, and the evaluation of bundles and scenes."""
