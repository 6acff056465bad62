"""Tests of mlff_cli.report."""
