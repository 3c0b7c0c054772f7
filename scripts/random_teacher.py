"""A pipeline folder of a published model at real size with random weights: `random_teacher.py architecture=sd15`."""

from clockwork.experiments.cli import entry

main = entry("random_teacher")

if __name__ == "__main__":
    main()
