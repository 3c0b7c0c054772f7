"""Perturbs layers of the UNet from some step on: `python scripts/perturb.py layers=up alpha=0.3` (Figures 2, 10–13)."""

from clockwork.experiments.cli import entry

main = entry("perturb")

if __name__ == "__main__":
    main()
