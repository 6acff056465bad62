"""Tests of mlff_cli/coarse/forces."""
