"""Reproduction of Chen et al. 2022: its tables, figures and claims, on given tiles."""
