"""How much `r_out` changes from step to step at every cut: `python scripts/drift.py`."""

from clockwork.experiments.cli import entry

main = entry("drift")

if __name__ == "__main__":
    main()
