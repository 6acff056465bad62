"""Tests of mlff_cli.cli."""
