"""Tests of mlff_cli.physics."""
