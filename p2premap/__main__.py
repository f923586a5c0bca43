"""`python -m p2premap` is the command `p2premap`."""

from p2premap.cli import main

if __name__ == "__main__":
    main()
