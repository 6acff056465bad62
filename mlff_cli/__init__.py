"""mlff: machine-learned force fields from raw data to a deployed, verified model."""
