"""The process ``amfvi``: the commands, with every failure as one line and an exit code."""

from __future__ import annotations

import io
import signal
import sys
import traceback
import warnings
from typing import Any

from amfvi.cli import app
from amfvi.errors import AmfviError, AmfviWarning

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code; an error is one line on stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a ?
    debug = "--debug" in sys.argv
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except _Interrupted:
        _fail("interrupted; nothing was written")
        code = 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        code = 141
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = int(getattr(error, "exit_code", AmfviError.exit_code))
        usage = getattr(error, "format_message", None)  # an error of the command-line parser
        if isinstance(error, AmfviError):
            _fail(str(error))
        elif usage is not None:
            _fail(usage())
        else:
            kind = type(error).__name__
            _fail(f"unexpected {kind}: {error} (a bug in amfvi? --debug shows the trace)")
    sys.exit(code)


class _Interrupted(BaseException):
    """Ctrl-C or a request to terminate; not an Exception, so nothing swallows it."""


def _interrupt(*_: Any) -> None:
    raise _Interrupted


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
) -> None:
    """Our own warnings as one line; others as Python shows them."""
    if issubclass(category, AmfviWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def _fail(message: str) -> None:
    line = " ".join(message.split())
    print(f"amfvi: error: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
