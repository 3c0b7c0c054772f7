"""The miniature: a small Stable Diffusion, trained on rendered scenes with captions, that ships with clockwork."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # folder of the shipped models
