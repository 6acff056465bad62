"""Artifacts for production: TorchScript, verification, calculators."""
