"""The miniature: a small Stable Diffusion that is trained on generated images with captions and ships with clockwork."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # folder of the shipped models
