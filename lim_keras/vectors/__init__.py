"""Vector files of mapped landslides and of mapped areas."""
