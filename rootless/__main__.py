"""`python -m rootless`: the same as the console script."""

from rootless.cli.main import main

if __name__ == "__main__":
    main()
