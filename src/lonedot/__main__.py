"""`python -m lonedot` is the command `lonedot`."""

from lonedot.cli import main

if __name__ == "__main__":
    main()
