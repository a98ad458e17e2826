"""`python -m khook`: the same as the console script, and exempt from being imported again in each worker."""

from khook.cli.main import main

if __name__ == "__main__":
    main()
