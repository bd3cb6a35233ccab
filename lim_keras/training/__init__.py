"""Training: run folders, single models, cross-validation, distillation and the final bundle."""
