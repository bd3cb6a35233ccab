"""Scores: formulae, Keras metrics, calibration, baseline and detections."""
