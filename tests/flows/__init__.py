"""Tests of mlff_cli.data."""
