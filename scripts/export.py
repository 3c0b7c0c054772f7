"""Full and adaptor steps as two graphs, for devices: `python scripts/export.py adaptor=linear schedule=clock2`."""

from clockwork.experiments.cli import entry

main = entry("export")

if __name__ == "__main__":
    main()
