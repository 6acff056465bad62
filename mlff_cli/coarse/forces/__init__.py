"""Linear maps of forces: rigid groups, Gram matrices, the optimal map and its report."""
