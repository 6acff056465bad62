"""Tests of mlff_cli.stages."""
