"""Figures, previews, tables and progress bars."""
