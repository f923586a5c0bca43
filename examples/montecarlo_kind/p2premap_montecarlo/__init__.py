"""A kind of job for p2premap: samples until the mean is known well enough."""
