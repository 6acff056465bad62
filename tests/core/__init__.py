"""Tests of mlff_cli.core."""
