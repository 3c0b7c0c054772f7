"""Times the parts against each other: `python scripts/bench.py`, or `teacher=sd15` on a GPU. `make bench`."""

from clockwork.experiments.cli import entry

main = entry("bench")

if __name__ == "__main__":
    main()
