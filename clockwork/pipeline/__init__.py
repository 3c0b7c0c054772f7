"""Clockwork on a diffusers pipeline, in one line."""

from clockwork.pipeline.enable import disable, enable
from clockwork.pipeline.summary import Summary, summary

__all__ = ["Summary", "disable", "enable", "summary"]
