"""Tests of mlff_cli.deploy.flows."""
