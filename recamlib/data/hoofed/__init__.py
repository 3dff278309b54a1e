"""Synthetic scenes of hoofed animals, drawn from a seed."""
