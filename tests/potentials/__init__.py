"""Tests of mlff_cli.potentials."""
