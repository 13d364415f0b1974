"""`python -m lprjax`, the command `lprjax` where its folder is not on the path."""

import sys

from lprjax.commands.command_line import main

if __name__ == "__main__":
    sys.exit(main())
