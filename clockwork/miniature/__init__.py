"""The miniature: captioned scenes, and Stable Diffusion in small trained on them."""
