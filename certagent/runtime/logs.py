"""What the agent says, one line at a time.

Every line passes one handler, which holds the rules: a record is one line and one write; what came
from elsewhere cannot forge a line, because whatever is not printable is escaped; and no secret that
was given to `conceal` gets out, whoever logs it. With `json` every line is one object: also
warnings, fatal errors, and exceptions that nobody caught.

Fields and errors are given as `logging` takes them:

    log.info("published", extra=fields(bundle="istiod-ca", version="5"))
    log.warning("the last good set stays", exc_info=error, extra=fields(bundle="istiod-ca"))

An expected error (`CertagentError`) shows its reason, findings and hint; any other is a bug, and
shows its traceback.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from msgspec.structs import asdict

from certagent.errors import CertagentError, ConfigurationError, MaterialRefused
from certagent.runtime.concealment import conceal, concealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["conceal", "configure", "fatal", "fields"]

Event = dict[str, Any]
"""A record as plain values without secrets: `time`, `level`, `logger`, `message`, fields."""

_log = logging.getLogger(__name__)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return `values` as the `extra` of a logging call, without those that are empty texts."""
    return {"fields": {name: value for name, value in values.items() if value != ""}}


def configure(
    format: Literal["text", "json"] = "text",  # noqa: A002 - the configuration's own word
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Write the log to `stream` (stderr), from `level` on; a second call replaces the first.

    Other libraries are heard from `warning` on, unless the level is `debug`. Python's warnings and
    the exceptions that nobody caught go the same way.
    """
    root = logging.getLogger()
    for handler in [known for known in root.handlers if isinstance(known, _LineHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LineHandler(stream or sys.stderr, _json if format == "json" else _text))
    ours = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("certagent").setLevel(ours)
    root.setLevel(ours if ours == logging.DEBUG else max(ours, logging.WARNING))
    warnings.showwarning = _on_warning
    sys.excepthook = _on_uncaught
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_thread_end


def fatal(error: BaseException) -> None:
    """Write the error that ends the process, whatever the level, in the configured format.

    As text it is for the person at a terminal or at `kubectl logs`: `certagent: <message>`, then,
    indented, what else there is to know. As JSON it is one object with `message`, `hint`, `code`
    (the exit code) and the `findings` or `faults` of the errors that have them. Before `configure`
    it is text on stderr.
    """
    message, told = "This is a bug in certagent.", {"code": CertagentError.exit_code}
    if isinstance(error, CertagentError):
        message, told = error.message, {"code": error.exit_code}
    cause = (type(error), error, error.__traceback__)
    record = logging.LogRecord("certagent", logging.CRITICAL, "", 0, message, None, cause)
    record.fields = told
    ours = [known for known in logging.getLogger().handlers if isinstance(known, _LineHandler)]
    handler = ours[0] if ours else _LineHandler(sys.stderr, _text)
    event = _event(record)
    handler.write(_farewell(event) if handler.render is _text else handler.render(event))


class _LineHandler(logging.Handler):
    """Writes each record in one call; that it cannot is never the agent's trouble."""

    def __init__(self, stream: TextIO, render: Callable[[Event], str]) -> None:
        super().__init__()
        self.stream = stream
        self.render = render

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or that it cannot be rendered: a value's own `str` may raise."""
        try:
            line = self.render(_event(record))
        except Exception as error:  # noqa: BLE001 - a log line must not end the agent
            where = f"{record.pathname}:{record.lineno}: {type(error).__name__}"
            message = f"a log record cannot be written: {where}"
            line = self.render(_head(record) | {"level": "error", "message": message})
        self.write(line)

    def write(self, line: str) -> None:
        """Write `line` and its end at once."""
        self.acquire()
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            # The stream is full or closed, and there is no other place to say so.
            pass
        finally:
            self.release()


def _head(record: logging.LogRecord) -> Event:
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return {
        "time": f"{moment}.{milliseconds:03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
    }


def _event(record: logging.LogRecord) -> Event:
    """Return the record as plain values, every secret concealed."""
    head = _head(record) | {"message": concealed(record.getMessage())}
    told: Event = _plain(getattr(record, "fields", {}))
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        told |= {key: value for key, value in _plain(_explained(error)).items() if value}
        if told.get("reason") == head["message"]:
            del told["reason"]
    # The head comes first, and no field can take its place.
    return head | told | head


def _explained(error: BaseException) -> Event:
    """Return what is known of an error: of an expected one no traceback, for it is not a fault."""
    told: Event = {"error": type(error).__name__}
    if not isinstance(error, CertagentError):
        lines = traceback.format_exception(error)
        hint = "Report it with its traceback."
        return told | {"reason": str(error), "traceback": "".join(lines), "hint": hint}
    told |= {"reason": error.message, "hint": error.hint}
    if isinstance(error, MaterialRefused):
        told["findings"] = [asdict(finding) for finding in error.findings]
    if isinstance(error, ConfigurationError):
        told["faults"] = error.faults
    return told


def _plain(value: object) -> Any:
    """Return `value` as JSON can hold it, with every secret in it concealed."""
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        case Mapping():
            return {concealed(str(key)): _plain(part) for key, part in value.items()}
        case list() | tuple() | AbstractSet():
            return [_plain(part) for part in value]
        case _:
            return concealed(str(value))


def _json(event: Event) -> str:
    import json  # noqa: PLC0415 - the text format does without

    return json.dumps(event)


def _text(event: Event) -> str:
    """Return `2026-11-21T22:54:54.123Z INFO  message key=value key="value with space"`.

    A library is named as `logger=`; of findings the codes are shown. The traceback of a bug follows
    in lines of its own, indented, so that no text in it can pass for a record.
    """
    told = {key: value for key, value in event.items() if key not in ("time", "level", "message")}
    if event["logger"].startswith("certagent"):
        del told["logger"]
    trace = told.pop("traceback", "")
    if "findings" in told:
        told["findings"] = [finding["code"] for finding in told["findings"]]
    line = f"{event['time']} {event['level'].upper():<5} {_escaped(event['message'])}"
    pairs = [f" {_escaped(key)}={_quoted(value)}" for key, value in told.items()]
    return "\n".join(["".join([line, *pairs]), *_indented(trace)])


def _farewell(event: Event) -> str:
    """Return a fatal error as a person wants to read it."""
    first, *others = event["message"].splitlines() or [""]
    lines = [f"certagent: {_escaped(first)}", *_indented("\n".join(others))]
    lines += _indented("\n".join(event.get("faults", [])))
    for finding in event.get("findings", []):
        lines += _indented(f"{finding['code']}: {finding['message']}")
        if finding["hint"] != event.get("hint"):
            lines += _indented(finding["hint"], "    ")
    lines += _indented(event.get("hint", "")) + _indented(event.get("traceback", ""))
    return "\n".join(lines)


def _indented(text: str, margin: str = "  ") -> list[str]:
    return [margin + _escaped(line) for line in text.splitlines()]


def _escaped(text: str) -> str:
    """Return `text` with controls, line ends, bidi marks and surrogates written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _quoted(value: object) -> str:
    match value:
        case bool() | None:
            text = str(value).lower()
        case list():
            text = ",".join(map(str, value))
        case _:
            text = str(value)
    if text and not set(text) & set(' "=\\') and text.isprintable():
        return text
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - as warnings.showwarning is called
    line: str | None = None,  # noqa: ARG001 - as warnings.showwarning is called
) -> None:
    where = fields(category=category.__name__, file=filename, line=lineno)
    _log.warning("%s", message, extra=where)


def _on_uncaught(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,  # noqa: ARG001 - as sys.excepthook is called
) -> None:
    # Who pressed Ctrl-C knows why the process ended.
    if not issubclass(kind, KeyboardInterrupt):
        fatal(error)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    message = unraisable.err_msg or "an exception could not be raised"
    _log.error("%s", message, exc_info=unraisable.exc_value)


def _on_thread_end(ended: threading.ExceptHookArgs) -> None:
    if not issubclass(ended.exc_type, SystemExit):
        thread = ended.thread.name if ended.thread else "unknown"
        _log.error("a thread ended", exc_info=ended.exc_value, extra=fields(thread=thread))
