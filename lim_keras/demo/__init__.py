"""Synthetic world, and the demo on it."""
