"""Makes the paper's tables: trains the adaptors they lack, measures the rows they lack, writes the report."""

from clockwork.experiments.cli import entry

main = entry("tables")

if __name__ == "__main__":
    main()
