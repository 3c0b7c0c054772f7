"""Text-guided editing: DDIM inversion and Plug-and-Play, each with or without a clock (paper, Section 5.3)."""
