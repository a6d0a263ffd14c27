"""`python -m clipcifar …`, where the command is not on the PATH."""

from clipcifar.cli.main import main

if __name__ == "__main__":
    main()
