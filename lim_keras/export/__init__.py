"""Export trained models: bundle, LiteRT files, TensorFlow Serving repository, model card, STAC item."""
