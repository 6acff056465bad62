"""Dynamics of beads."""
