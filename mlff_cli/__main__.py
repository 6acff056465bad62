"""`python -m mlff_cli`: the same as the command `mlff`, as torchrun and srun need it."""

from mlff_cli.cli.app import main

if __name__ == "__main__":
    main()
