"""Tests of mlff_cli/coarse/priors."""
