"""`python -m lupctl`, where the command itself is not on the path."""

from lupctl.cli.app import main

if __name__ == "__main__":
    main()
