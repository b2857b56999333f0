"""The `kedge-server` command. Every option can also come from the environment."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kedge_server import failures, logs
from kedge_server.settings import Compile, Limits, Settings

_PREFIX = "KEDGE_SERVER_"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")
_HEX = re.compile(r"[0-9a-fA-F]{64}\Z")
_Value = TypeVar("_Value")


def _checked(convert: Callable[[str], _Value], fits: Callable[[_Value], Any], wanted: str) -> Callable[[str], _Value]:
    """Returns a reader of an option's text, which says what is wanted when it gets anything else."""

    def read(text: str) -> _Value:
        with contextlib.suppress(ValueError):
            if fits(value := convert(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")

    return read


def _anything(_: Any) -> bool:
    return True


_name = _checked(str, _NAME.match, "a name of letters, digits, '.', '_' and '-', at most 253")
_digest = _checked(lambda text: text.removeprefix("sha256:").lower(), _HEX.match, "a sha256 of 64 hexadecimal digits")
_host = _checked(lambda text: text.encode("idna").decode(), _anything, "a host's name or address")
_port = _checked(int, lambda value: 0 <= value < 1 << 16, "a port, which is a number from 0 to 65535")
_count = _checked(int, lambda value: value >= 1, "a whole number above 0")
_positive = _checked(float, lambda value: 0 < value < math.inf, "a finite number above 0")
_not_negative = _checked(float, lambda value: 0 <= value < math.inf, "a finite number of 0 or more")
_truth = _checked(lambda text: bool(("false", "true").index(text)), _anything, "true or false")
_compile = _checked(Compile, _anything, " or ".join(choice.value for choice in Compile))
_level = _checked(str, ("debug", "info", "warning", "error").__contains__, "one of debug, info, warning, error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 cannot be done, 2 asked wrongly."""
    options = parser(os.environ).parse_args(arguments)
    logs.configure(options.log_level)
    # The first process of a container has no default reaction to signals: without this, a pod that is
    # deleted while it starts or fetches would stay until it is killed. The server takes over once it listens.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        result: int = options.run(options)
    except failures.StartFailure as failure:
        failures.report(failure, options.termination_log)
        print(failure.to_json(), file=sys.stderr)  # noqa: T201 - also where a person looks first
        return 1
    except OSError as exc:
        print(f"kedge-server: {exc.strerror or exc}", file=sys.stderr)  # noqa: T201
        return 1
    return result


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Builds the parser; `environment` holds the KEDGE_SERVER_* variables."""
    root = argparse.ArgumentParser(
        prog="kedge-server",
        description="Serves one scikit-learn model over the Open Inference Protocol V2.",
        epilog=f"Every option can also be set by the environment: --model-name as {_PREFIX}MODEL_NAME,"
        " repeatable ones separated by commas. The command line wins.",
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands, environment)
    _add_fetch(commands, environment)
    _add_package(commands, environment)
    _add_check(commands, environment)
    return root


def _add_serve(commands: Any, environment: Mapping[str, str]) -> None:
    limits = Limits()
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    command = commands.add_parser(
        "serve",
        help="serve a model until SIGTERM",
        description="Checks the digest of a skops file, loads it, warms it up, and serves it on one port,"
        " with /metrics.",
    )
    add = _Options(command, environment)
    add("model-name", _name, "name in the protocol's paths and in metrics", required=True)
    add("model-path", Path, "skops file or package directory", required=True)
    add("model-version", _name, "version in the protocol's paths", defaults["model_version"])
    _add_trust(add)
    add("host", _host, "address to listen on", defaults["host"])
    add("port", _port, "port to listen on; 0 takes a free one", defaults["port"])
    add("grpc-port", _port, "port for gRPC as well; none by default")
    add("count-data", _truth, "false to leave out the counters over the package's profile", "true")
    add(
        "compile",
        _compile,
        "Auto answers by plain numpy instead of scikit-learn where that is proved by the golden rows to give the"
        " same; Off does not",
        defaults["compile"].value,
    )
    add(
        "latency-threshold-ms",
        _positive,
        "threshold of a latency objective, in milliseconds; gives the histogram an edge exactly there",
        repeatable=True,
    )
    add("drain-seconds", _not_negative, "time to go on serving after SIGTERM", defaults["drain_seconds"])
    add(
        "max-connection-age-seconds",
        _positive,
        "age from which a connection is closed with its next answer",
        defaults["max_connection_age_seconds"],
    )
    add(
        "feedback-tolerance",
        _not_negative,
        "distance from its label at which a regressor's prediction still counts as correct, in the label's unit",
        defaults["feedback_tolerance"],
    )
    add(
        "feedback-tolerance-percent",
        _not_negative,
        "the same in percent of the label; the wider of the two counts",
        defaults["feedback_tolerance_percent"],
    )
    add("max-batch-rows", _count, "rows that are predicted together at most", limits.max_batch_rows)
    add("max-queue-rows", _count, "rows that may wait; more are answered 503", limits.max_queue_rows)
    add("max-queue-bytes", _count, "bytes of requests that may wait; more are answered 503", limits.max_queue_bytes)
    add("max-body-bytes", _count, "size of a request's body; more is answered 413", limits.max_body_bytes)
    add(
        "request-timeout-seconds",
        _positive,
        "time from a request's last byte to its answer",
        limits.request_timeout_seconds,
    )
    add(
        "receive-timeout-seconds",
        _positive,
        "time for a client to send a whole request",
        limits.receive_timeout_seconds,
    )
    add("max-connections", _count, "open connections; more are answered 503", limits.max_connections)
    _add_common(add)
    command.set_defaults(run=_serve)


def _add_fetch(commands: Any, environment: Mapping[str, str]) -> None:
    command = commands.add_parser(
        "fetch",
        help="copy a model's file here and check its digest",
        description="Copies a file, or a package when the URI ends in a slash, from an http, https, file, s3 or gs"
        " URI or a plain path. It appears under its name only when all of it has arrived and its digest is right.",
    )
    add = _Options(command, environment)
    command.add_argument("uri", metavar="URI", help="where the file is")
    add("out", Path, "where it goes", required=True)
    add("sha256", _digest, "what the file must hash to, in hex")
    add("timeout-seconds", _positive, "time for all tries together", 300.0)
    add("max-bytes", _count, "size that is refused when exceeded", 8 << 30)
    _add_common(add)
    command.set_defaults(run=_fetch)


def _add_package(commands: Any, environment: Mapping[str, str]) -> None:
    command = commands.add_parser(
        "package",
        help="pack a model with its signature, profile and golden rows",
        description="Writes a directory with the model, what its training data looked like, and rows with the"
        " answers of now; prints the digest to declare. In a training script: kedge_server.package(...).",
    )
    add = _Options(command, environment)
    command.add_argument("model", metavar="MODEL", type=Path, help="skops file")
    add("reference", Path, "rows like those of training: a CSV file with a header, or a .npy file", required=True)
    add("out", Path, "directory to make", required=True)
    add("model-name", _name, "name of the model", required=True)
    add("model-version", _name, "version of the model", "1")
    add("golden-rows", _count, "rows to keep with their answers", 20)
    add("bins-of", Path, "package of an earlier version: take its bins, so that live data of both can be compared")
    add("trusted-type", str, "type to trust besides scikit-learn's and numpy's own", repeatable=True)
    _add_common(add)
    command.set_defaults(run=_package)


def _add_check(commands: Any, environment: Mapping[str, str]) -> None:
    command = commands.add_parser(
        "check",
        help="tell whether a model can be served here",
        description="Does what serve does until it is ready, then prints what there is to know as JSON.",
    )
    add = _Options(command, environment)
    command.add_argument("model", metavar="MODEL", type=Path, help="skops file or package directory")
    _add_trust(add)
    _add_common(add)
    command.set_defaults(run=_check)


def _add_trust(add: _Options) -> None:
    add("sha256", _digest, "what the file or the package's kedge.json must hash to; checked before it is loaded")
    add("trusted-type", str, "type to trust besides scikit-learn's and numpy's own", repeatable=True)
    add("allow-version-skew", _truth, "true to serve a model of another scikit-learn", "false")


def _add_common(add: _Options) -> None:
    add(
        "termination-log",
        Path,
        "file that takes the reason of a failed start, as one line of JSON, if it exists",
        Path("/dev/termination-log"),
    )
    add("log-level", _level, "debug, info, warning or error", "info")


class _Options:
    """Adds options that take their default from the environment."""

    def __init__(self, command: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment

    def __call__(
        self,
        name: str,
        convert: Callable[[str], Any],
        text: str,
        default: Any = None,
        *,
        required: bool = False,
        repeatable: bool = False,
    ) -> None:
        variable = _PREFIX + name.replace("-", "_").upper()
        given = self._environment.get(variable)

        def read(value: str) -> Any:
            try:
                return [convert(v.strip()) for v in value.split(",") if v.strip()] if repeatable else convert(value)
            except argparse.ArgumentTypeError as exc:
                # argparse names the option, which is not where somebody looks who has set a variable.
                raise argparse.ArgumentTypeError(f"{exc} (from {variable})" if value is given else str(exc)) from exc

        shown = f" (default: {default})" if default is not None else ""
        self._command.add_argument(
            f"--{name}",
            action=_Collect if repeatable else "store",
            type=read,
            # A default that is a string is converted like an argument, errors included, but only
            # once this command has been chosen and no help was asked for.
            default=default if given is None else given,
            required=required and given is None,
            help=text + shown,
            metavar=name.rpartition("-")[2].upper(),
        )


class _Collect(argparse.Action):
    """Collects the values of an option; those of the command line take the place of the environment's."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*before, *values] if isinstance(before, list) else values)


def _serve(options: argparse.Namespace) -> int:
    # scikit-learn takes a second to import, which --help and fetch need not.
    from kedge_server import serving  # noqa: PLC0415

    settings = Settings(
        model_name=options.model_name,
        model_path=options.model_path,
        model_version=options.model_version,
        sha256=options.sha256,
        trusted_types=tuple(_repeated(options, "trusted_type")),
        allow_version_skew=options.allow_version_skew,
        host=options.host,
        port=options.port,
        grpc_port=options.grpc_port,
        count_data=options.count_data,
        compile=options.compile,
        latency_thresholds_ms=tuple(_repeated(options, "latency_threshold_ms")),
        drain_seconds=options.drain_seconds,
        max_connection_age_seconds=options.max_connection_age_seconds,
        feedback_tolerance=options.feedback_tolerance,
        feedback_tolerance_percent=options.feedback_tolerance_percent,
        termination_log=options.termination_log,
        log_level=options.log_level,
        limits=Limits(
            max_body_bytes=options.max_body_bytes,
            max_batch_rows=options.max_batch_rows,
            max_queue_rows=options.max_queue_rows,
            max_queue_bytes=options.max_queue_bytes,
            request_timeout_seconds=options.request_timeout_seconds,
            receive_timeout_seconds=options.receive_timeout_seconds,
            max_connections=options.max_connections,
        ),
    )
    try:
        return serving.run(settings)
    except OSError as exc:
        # gRPC names the address that it cannot have; the system's error does not.
        option, why = "grpc-port", str(exc)
        if exc.strerror:
            option, why = "port", f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}"
        raise OSError(f"{why}; stop what is there, or choose another --host or --{option}") from exc


def _fetch(options: argparse.Namespace) -> int:
    from kedge_server import fetching  # noqa: PLC0415

    fetching.fetch(
        options.uri,
        options.out,
        options.sha256,
        timeout_seconds=options.timeout_seconds,
        max_bytes=options.max_bytes,
    )
    return 0


def _package(options: argparse.Namespace) -> int:
    from kedge_server import loading, packing  # noqa: PLC0415

    trusted = tuple(_repeated(options, "trusted_type"))
    model = loading.load(options.model, trusted_types=trusted)
    try:
        digest = packing.package(
            model.estimator,
            packing.read_reference(options.reference, model.signature),
            options.out,
            name=options.model_name,
            version=options.model_version,
            golden_rows=options.golden_rows,
            trusted_types=trusted,
            bins_of=options.bins_of,
        )
    except (ValueError, OSError) as exc:
        print("kedge-server:", " ".join(str(exc).split()), file=sys.stderr)  # noqa: T201 - one line, whoever raised it
        return 2
    print(digest)  # noqa: T201
    return 0


def _check(options: argparse.Namespace) -> int:
    from kedge_server import checking  # noqa: PLC0415

    settings = Settings(
        model_name="checked",
        model_path=options.model,
        sha256=options.sha256,
        trusted_types=tuple(_repeated(options, "trusted_type")),
        allow_version_skew=options.allow_version_skew,
    )
    print(json.dumps(checking.check(settings), indent=2, default=str))  # noqa: T201
    return 0


def _repeated(options: argparse.Namespace, name: str) -> list[Any]:
    return getattr(options, name) or []


if __name__ == "__main__":
    sys.exit(main())
