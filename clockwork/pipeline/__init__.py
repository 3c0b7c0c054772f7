"""Clockwork on a diffusers pipeline: one call to calibrate or enable it, one to disable it."""

from clockwork.pipeline.calibrate import calibrate
from clockwork.pipeline.enable import disable, enable
from clockwork.pipeline.summary import Summary, summary

__all__ = ["Summary", "calibrate", "disable", "enable", "summary"]
