"""Clockwork on a diffusers pipeline: one call to enable it, one to disable it."""

from clockwork.pipeline.enable import disable, enable
from clockwork.pipeline.summary import Summary, summary

__all__ = ["Summary", "disable", "enable", "summary"]
