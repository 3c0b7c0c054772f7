"""Rivals: other methods that make UNets cheaper, in the same sampling loop as Clockwork's adaptors."""
