"""Trained models as bundles of SavedModels that need nothing of this package to run."""
