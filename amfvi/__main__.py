"""The process ``amfvi``: the commands, with every failure as one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys

if __name__ == "__main__" and sys.path[0] in ("", os.getcwd()):
    # Of "python -m amfvi": a file random.py here is not the standard library's.
    del sys.path[0]

import traceback
import warnings
from typing import Any

from amfvi.cli.commands import app
from amfvi.cli.flags import flags_for_arguments
from amfvi.cli.terminal import wrapped
from amfvi.errors import AmfviError, AmfviWarning, ExitCode

__all__ = ["main"]

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Of a disk that takes no more, where stdout goes to a file."""


_pid = 0
"""The process that ``main`` runs in."""


def main() -> None:
    """Run the command line and exit with its code; an error is one line on stderr."""
    global _pid
    _pid = os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a ?
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else ExitCode.GOOD
    except (_Interrupted, KeyboardInterrupt) as interruption:
        _fail("; ".join(["interrupted", *_notes(interruption)]))
        code = getattr(interruption, "exit_code", ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has closed it
        sys.stderr.close()
        code = ExitCode.BROKEN_PIPE
    except Exception as error:
        # Read from sys.argv, so that it works for errors of the parser too.
        if "--debug" in sys.argv:
            traceback.print_exc()
        code = _report(error)
    sys.exit(int(code))


class _Interrupted(BaseException):
    """Ctrl-C or a request to terminate; not an Exception, so that nothing swallows it."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__()
        self.exit_code = exit_code


def _interrupt(number: int, *_: Any) -> None:
    if os.getpid() != _pid:
        # A copy of this process, such as a worker of a user's pool: what is raised there may be
        # swallowed, and the pool then waits for ever for the worker that it has told to end.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    terminated = number == signal.SIGTERM
    raise _Interrupted(ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED)


def _report(error: Exception) -> int:
    """Print an error as one line and return its exit code."""
    parser_message = getattr(error, "format_message", None)  # an error of the parser
    if isinstance(error, AmfviError):
        message = "; ".join([str(error), *_notes(error)])
        # What a user's code says is about its own arguments.
        verbatim = "" if error.__cause__ is None else _one_line(str(error.__cause__))
        _fail(flags_for_arguments(_one_line(message), verbatim=verbatim))
    elif parser_message is not None:
        _fail(parser_message())
    elif isinstance(error, OSError) and error.errno in DISK_ERRORS:
        _fail(f"cannot be written ({error}); free some space, or write elsewhere")
        return int(ExitCode.INPUT)
    else:
        kind = type(error).__name__
        _fail(f"unexpected {kind}: {error} (a bug in amfvi? --debug shows the trace)")
    return int(getattr(error, "exit_code", ExitCode.UNEXPECTED))


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
) -> None:
    """Show our own warnings as one line, others as Python does."""
    if issubclass(category, AmfviWarning):
        line = f"warning: {flags_for_arguments(str(message))}"
        print(wrapped(line, sys.stderr, indent=4), file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def _fail(message: str) -> None:
    print(wrapped(f"amfvi: error: {_one_line(message)}", sys.stderr, indent=4), file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
