"""Measures every adaptor at many operating points, with several noise seeds and fits: means with spreads."""

from clockwork.experiments.cli import entry

main = entry("evidence")

if __name__ == "__main__":
    main()
