"""Formulas that learn nothing: cutoffs, Coulomb, dispersion, quantum chemistry engines."""
