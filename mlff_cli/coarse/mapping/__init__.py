"""From atoms to beads: residues, species, chains, bonds of beads."""
