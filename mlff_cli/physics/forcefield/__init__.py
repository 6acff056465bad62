"""A molecular-mechanics force field as batched torch, read from an OpenMM System."""

from mlff_cli.physics.forcefield.model import ForceField

__all__ = ["ForceField"]
