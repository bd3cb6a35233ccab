"""Audit of labelled tiles: leaks, label errors, defects of images, shortcuts, and doubtful labels of a finished run."""
