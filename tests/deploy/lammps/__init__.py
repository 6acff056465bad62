"""Tests of what runs in LAMMPS."""
