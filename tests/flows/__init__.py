"""Tests of mlff_cli.flows."""
