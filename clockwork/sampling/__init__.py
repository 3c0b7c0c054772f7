"""Sampling: denoisers, guidance, solvers, the sampling loop and the sampler."""
