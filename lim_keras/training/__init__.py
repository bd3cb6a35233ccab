"""From tiles to trained networks: one model (`fit`), or five by cross-validation (`cross_validation`)."""
