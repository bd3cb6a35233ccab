"""Predict scenes window by window."""
