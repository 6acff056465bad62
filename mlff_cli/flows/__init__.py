"""Normalizing flows between temperatures, their objective and the gate of their energies."""
