"""Coarse-grained models: what leaves the toolkit, and what it is worth."""
