"""Checks all commands on one GPU with random weights at real size: `make gpu-check` writes outputs/gpu/report.md."""

from clockwork.experiments.cli import entry

main = entry("gpu_check")

if __name__ == "__main__":
    main()
