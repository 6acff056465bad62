"""Ensembles of conformations: collective variables, free energies, and how far two ensembles are.

Arrays in, arrays out; no torch, no files. Frames come as series, one per run: frames of a run are
correlated, and everything that speaks of uncertainty takes that into account (`decorrelation`).
"""
