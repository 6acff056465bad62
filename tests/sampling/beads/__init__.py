"""Tests of mlff_cli.sampling.beads."""
