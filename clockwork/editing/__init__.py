"""Text-guided image editing: DDIM inversion and Plug-and-Play, with or without a clock (paper, Section 5.3)."""
