"""Notebooks with parameters, and the book made of them."""
