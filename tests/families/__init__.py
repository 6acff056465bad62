"""Tests of mlff_cli.families."""
