"""Files of coarse-grained sets and priors, and what joins them to their trajectories."""
