"""Tests of mlff_cli.training."""
