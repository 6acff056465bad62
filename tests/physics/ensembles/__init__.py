"""Tests of mlff_cli.physics.ensembles."""
