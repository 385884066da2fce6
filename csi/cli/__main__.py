"""`python -m csi.cli`: the `akvfs` command."""

from csi.cli import main

if __name__ == "__main__":
    main(prog_name="akvfs")
