"""Analysis: what the idea rests on. How features drift between steps, and what disturbing them does."""
