"""Metrics: images in, or a callable in; a number out."""
