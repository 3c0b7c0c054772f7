"""Training of the miniature from scratch."""

from clockwork.miniature.training.recipe import Recipe

__all__ = ["Recipe"]
