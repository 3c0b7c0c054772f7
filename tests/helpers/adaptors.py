"""A small adaptor's feature dimensions, and its operating point."""

from clockwork.adaptors import FeatureDims
from clockwork.operating_point import OperatingPoint

SMALL = FeatureDims(r_in=8, r_out=12, t_emb=16, text_emb=10)
POINT = OperatingPoint("miniature", "abc", "2,3", "clock2", "dpm++", 8, 3.0, 32)
