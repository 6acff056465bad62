"""Tests of mlff_cli.deploy.beads."""
