"""Priors fitted to distributions of internal coordinates."""
