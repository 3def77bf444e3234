"""Diffusion over diffusers' networks and schedulers: loss, guidance, sampling loop."""
