"""Trains the miniature's parts from nothing."""

from clockwork.miniature.training.recipe import Recipe

__all__ = ["Recipe"]
