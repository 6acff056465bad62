"""Coarse-graining: mappings of atoms to beads, maps of forces, priors fitted to distributions."""
