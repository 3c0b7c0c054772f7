"""Writes reports: `python scripts/report.py table=3`, `figure=4`, `table=all`, `flops`, `unets`, or `html`."""

from clockwork.experiments.cli import entry

main = entry("report")

if __name__ == "__main__":
    main()
