"""Class Re-Activation Maps: a thin library behind the notebooks of this report."""
