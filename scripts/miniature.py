"""Trains a stage of the miniature; `make miniature` runs them all, one after the other. Resumes."""

from clockwork.experiments.cli import entry

main = entry("miniature")

if __name__ == "__main__":
    main()
