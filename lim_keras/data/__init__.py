"""From files on disk to batches: rasters, tiles, folds, sampling, augmentation, and a made-up world to try them on."""
