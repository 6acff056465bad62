"""One training loop for every family, and its parts."""
