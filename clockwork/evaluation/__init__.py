"""Evaluation: an operating point → pictures → metrics → a row."""
