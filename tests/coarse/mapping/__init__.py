"""Tests of mlff_cli/coarse/mapping."""
