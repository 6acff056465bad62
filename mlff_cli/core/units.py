"""Unit conversions, all from CODATA 2018 (the set that ASE, dftd3 and PySCF can be compared in).

Energies are in eV, lengths in angstrom, charges in e unless a name says otherwise; multiplying by
a constant turns its unit into these: `3 * HARTREE` is three hartree in eV.
"""

from __future__ import annotations

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # angstrom
KCAL_MOL = 0.0433641042418  # eV: 4184 J / (N_A e) with the exact SI values of N_A and e
KJ_PER_KCAL = 4.184  # thermochemical calorie, exact
KJ_MOL = KCAL_MOL / KJ_PER_KCAL  # eV
DEBYE = 0.20819433270935597  # e angstrom: 1e-21 C m^2/s over c, with the exact SI c and e
COULOMB = HARTREE * BOHR  # eV angstrom: energy of two unit charges one angstrom apart
