"""Clockwork on a diffusers pipeline: one call to calibrate or enable it, one to disable it."""

from clockwork.pipeline.branches import branch
from clockwork.pipeline.calibrate import calibrate
from clockwork.pipeline.enable import disable, enable
from clockwork.pipeline.menu import Menu
from clockwork.pipeline.summary import Summary, summary
from clockwork.pipeline.tune import tune

__all__ = ["Menu", "Summary", "branch", "calibrate", "disable", "enable", "summary", "tune"]
