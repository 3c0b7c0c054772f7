"""The miniature: captioned scenes, and Stable Diffusion in small trained on them."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
