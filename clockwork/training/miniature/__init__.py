"""Trains the miniature's parts from nothing."""

from clockwork.training.miniature.recipe import Recipe

__all__ = ["Recipe"]
