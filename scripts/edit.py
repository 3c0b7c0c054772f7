"""Edits an image by a text: `python scripts/edit.py image=jeep.jpg source="a toy of a jeep" target="…"`, or a set."""

from clockwork.experiments.cli import entry

main = entry("edit")

if __name__ == "__main__":
    main()
