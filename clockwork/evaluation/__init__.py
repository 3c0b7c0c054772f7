"""Evaluation: an operating point → images → metrics → a row."""
