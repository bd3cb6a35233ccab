"""Exported models: description, loading, verification."""
