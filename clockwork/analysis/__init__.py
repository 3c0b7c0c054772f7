"""Analyses of the UNet's features: how they change between steps, and how noise in one layer changes the image."""
