"""Fits a linear adaptor in closed form, in seconds: `python scripts/calibrate.py schedule=clock2 steps=8`."""

from clockwork.experiments.cli import entry

main = entry("calibrate")

if __name__ == "__main__":
    main()
