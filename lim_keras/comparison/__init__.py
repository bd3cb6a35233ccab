"""Comparison of training runs: scores, curves, settings and data of run folders, beside each other."""
