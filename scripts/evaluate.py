"""Measures operating points: `python scripts/evaluate.py adaptor=identity schedule=clock2`, a sweep, or `+table=3`."""

from clockwork.experiments.cli import entry

main = entry("evaluate")

if __name__ == "__main__":
    main()
