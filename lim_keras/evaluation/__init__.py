"""How good a model is where landslides lie anywhere: three protocols, intervals, threshold and calibration."""
