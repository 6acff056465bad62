"""Tests of the batched force field."""
