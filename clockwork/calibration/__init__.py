"""Adaptors fitted in closed form, in seconds: sums over a clocked roll-out, and least squares on every adaptor step."""
