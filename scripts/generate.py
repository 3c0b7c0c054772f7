"""One prompt without and with Clockwork: `python scripts/generate.py prompt="…" adaptor=identity schedule=clock2`."""

from clockwork.experiments.cli import entry

main = entry("generate")

if __name__ == "__main__":
    main()
