"""Learned potentials and what is added to them."""
