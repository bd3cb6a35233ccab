"""Pictures of data, training and results."""
