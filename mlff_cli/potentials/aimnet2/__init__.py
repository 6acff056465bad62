"""AIMNet2 with one shared backbone and one readout per fidelity."""
