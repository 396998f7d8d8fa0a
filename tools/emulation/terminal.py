"""Runs a command on a terminal of its own, whose output is dropped, and kills it after a time limit.

terminal.py SECONDS COMMAND [ARGUMENT...]; exits with 124 when the limit was reached.
"""

import os
import pty
import select
import signal
import sys
import time


def main() -> int:
    end = time.monotonic() + float(sys.argv[1])
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.argv[2], sys.argv[2:])
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            if not os.read(terminal, 65536):
                break
        except OSError:  # The other side is closed.
            break
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return 124
    os.waitpid(child, 0)
    return 0


sys.exit(main())
