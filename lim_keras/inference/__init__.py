"""Predicting scenes of any size window by window."""
