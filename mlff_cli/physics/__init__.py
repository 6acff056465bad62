"""Formulas of the field that learn nothing: cutoffs, Coulomb, dispersion, quantum chemistry engines."""
