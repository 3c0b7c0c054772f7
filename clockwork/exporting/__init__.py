"""An enabled pipeline as two graphs, for devices without diffusers, and a runner for them."""

from clockwork.exporting.pair import export

__all__ = ["export"]
