"""Requests that are wrong in as many ways as come to mind, from a seeded dice.

A mutant that is well framed leaves its connection usable, so thousands go over a few.
One that breaks HTTP itself gets a connection of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import orjson
from tests.model_server import support

INFER = "/v2/models/m/infer"
Headers = dict[str, str]

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 2**64, -(2**63), 1.5, 1e308, "", "FP64", "x" * 300, [], {}, [[]], [None],
)  # fmt: skip
# Not JSON, or not by everybody's rules.
LITERALS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"0x10", b"01", b"1_000", b"'a'", b"tru", b"\xff\xfe", b"\x00",
    b'"\\ud800"', b'"\\u0000"', b"1" * 400, b"[" * 3000, b'{"a":' * 2000, b"[" * 3000 + b"]" * 3000, b'{"a":1,"a":2}',
)  # fmt: skip
# What a request asks for, and whether it counts as an infer request.
TARGETS = (
    ("/v2/models/other/infer", True),
    ("/v2/models/m/versions/9/infer", True),
    ("/v2/models/m/versions//infer", True),
    ("/v2/models//infer", True),
    ("/v2/models/%6d/infer", True),
    ("/v2/models/m%00/infer", True),
    ("/v2/models/%ff%fe/infer", True),
    (f"/v2/models/{'m' * 5000}/infer", True),
    ("/../../etc/passwd/infer", True),
    (INFER + "?a=b&a=%zz", True),
    (INFER + "/", False),
    ("/v2/models/m", False),
    ("/v2/health/ready", False),
    ("/metrics?name[]=" + "x" * 2000, False),
    ("/metrics?" + "&".join(["name[]=a"] * 200), False),
    ("/" + "/" * 3000, False),
    ("/v2/repository/index", False),
    ("*", False),
)
ODD_HEADERS: tuple[Headers, ...] = (
    {"content-type": "text/html; charset=\xff"},
    {"accept-encoding": "gzip;q=x, ;;, *;q=-1"},
    {"accept": "\x80\x81"},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-zz"},
    {"x-large": "a" * 30_000},
    {"inference-header-content-length": "1e3"},
    {"inference-header-content-length": "-1"},
    {"inference-header-content-length": "9" * 40},
    {"inference-header-content-length": "\u00b2"},
    {"content-encoding": "br"},
    {"content-encoding": "gzip, gzip"},
    {"content-encoding": "GZIP"},
    {"content-encoding": ""},
    {"expect": "100-continue"},
    {"expect": "everything"},
    {"cookie": "; ".join(["a=b"] * 500)},
    {"host": ""},
)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One request.

    Attributes:
        content: The bytes to send.
        counted: Whether the server counts it as an infer request.
        kind: How it was made, for a message about it.
    """

    content: bytes
    counted: bool
    kind: str


def http(target: str, body: bytes, headers: Headers, method: str = "POST") -> bytes:
    """Returns a request that is well framed, unless the headers say otherwise."""
    lines = [f"{method} {target} HTTP/1.1"]
    framed = {"host": "m", **headers}
    if "transfer-encoding" not in headers:
        framed.setdefault("content-length", str(len(body)))
    lines += [f"{name}: {value}" for name, value in framed.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@functools.cache
def bomb() -> bytes:
    """Returns 64 KB that become 64 MiB."""
    return zlib.compress(bytes(64 << 20), 9)


class Mutants:
    """An endless supply of mutants.

    Args:
        seed: The same one gives the same mutants.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self._framed: tuple[Callable[[], Mutant], ...] = (
            self._damaged,
            self._damaged,
            self._odd_field,
            self._odd_field,
            self._odd_literal,
            self._odd_shape,
            self._compressed,
            self._binary,
            self._binary,
            self._chunked,
            self._elsewhere,
            self._odd_header,
            self._other_method,
        )

    def framed(self) -> Mutant:
        """Returns one after which its connection can go on."""
        return self.dice.choice(self._framed)()

    def broken(self) -> Mutant:
        """Returns one that breaks HTTP, or may."""
        good = http(INFER, orjson.dumps(self._good()), {})
        way = self.dice.randrange(4)
        if way == 0:
            return Mutant(good[: self.dice.randrange(len(good))], counted=False, kind="cut off")
        if way == 1:
            return Mutant(self.dice.choice(_NOT_HTTP), counted=False, kind="not HTTP")
        if way == 2:
            content = good.replace(b"content-length: ", self.dice.choice(_FRAMING), 1)
            return Mutant(content, counted=False, kind="framing")
        return Mutant(self._spliced(good), counted=False, kind="spliced")

    def _good(self) -> dict[str, Any]:
        return support.iris_body(rows=self.dice.randint(1, 3), id="a", outputs=[{"name": "predict_proba"}])

    def _spliced(self, good: bytes) -> bytes:
        content = bytearray(good)
        for _ in range(self.dice.randint(1, 3)):
            place = self.dice.randrange(len(content))
            piece = self.dice.choice(
                [b"", b'"', b"9", b"[", b"}", b"null", b"\x00", b"\r\n", b":", self.dice.randbytes(3)]
            )
            content[place : place + self.dice.randint(0, 3)] = piece
        return bytes(content)

    def _infer(self, body: bytes, kind: str, headers: Headers | None = None) -> Mutant:
        return Mutant(http(INFER, body, headers or {}), counted=True, kind=kind)

    def _damaged(self) -> Mutant:
        return self._infer(self._spliced(orjson.dumps(self._good())), "damaged body")

    def _odd_field(self) -> Mutant:
        document = self._good()
        place: Any = self.dice.choice([document, document["inputs"][0], document["outputs"][0]])
        name = self.dice.choice([*place, "parameters"])
        if self.dice.random() < 0.2:
            place.pop(name, None)
        else:
            place[name] = self.dice.choice(ODD_VALUES)
        return self._infer(json.dumps(document).encode(), f"odd {name}")

    def _odd_literal(self) -> Mutant:
        good = orjson.dumps(self._good())
        place = self.dice.choice([good.index(b"[["), good.index(b'"a"'), good.index(b"[", good.index(b"shape"))])
        return self._infer(good[:place] + self.dice.choice(LITERALS) + good[place:], "odd literal")

    def _odd_shape(self) -> Mutant:
        numbers = (-1, 0, 1, 2, 4, 2**31, 2**62, 2**63, 10**30)
        document = self._good()
        tensor = document["inputs"][0]
        tensor["shape"] = [self.dice.choice(numbers) for _ in range(self.dice.randint(0, 5))]
        tensor["datatype"] = self.dice.choice(["FP64", "INT8", "UINT64", "BOOL", "BYTES", "FP16", "FP128", "fp64"])
        tensor["data"] = self.dice.choice(
            [[], [[]], [1, 2, 3, 4], [[1, 2], [3]], ["a"] * 4, [1e300] * 4, [[[[1]]]] * 4]
        )
        return self._infer(json.dumps(document).encode(), "odd shape")

    def _compressed(self) -> Mutant:
        good = orjson.dumps(self._good())
        coding, packed = self.dice.choice([("gzip", gzip.compress(good)), ("deflate", zlib.compress(good))])
        way = self.dice.randrange(5)
        if way == 0:
            packed = packed[: self.dice.randrange(len(packed))]
        elif way == 1:
            packed = self._spliced(packed)
        elif way == 2:
            packed += self.dice.randbytes(20)
        elif way == 3 and self.dice.random() < 0.1:
            packed, coding = bomb(), "deflate"
        else:
            coding = "deflate" if coding == "gzip" else "gzip"
        return self._infer(packed, "compressed", {"content-encoding": coding})

    def _binary(self) -> Mutant:
        datatype = self.dice.choice(["FP64", "FP32", "BYTES", "INT8", "BOOL", "FP16"])
        size = self.dice.choice([32, 16, 0, -1, 2**40, 31, None, "32", 4])
        tensor = {"name": "input", "datatype": datatype, "shape": [1, 4], "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor] * self.dice.randint(1, 2)}).encode()
        blob = self.dice.randbytes(self.dice.choice([0, 1, 16, 31, 32, 33, 200]))
        length = self.dice.choice([len(head), len(head), len(head) - 1, len(head) + 1, 0, 10**9])
        headers = {"inference-header-content-length": str(length), "content-type": "application/octet-stream"}
        return self._infer(head + blob, "binary", headers)

    def _chunked(self) -> Mutant:
        body = self._spliced(orjson.dumps(self._good()))
        step = self.dice.choice([1, 7, 1000])
        parts = [body[start : start + step] for start in range(0, len(body), step)]
        extension = self.dice.choice([b"", b";a=b", b";" + b"x" * 100])
        content = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n\r\n"
        return self._infer(content, "chunked", {"transfer-encoding": "chunked"})

    def _elsewhere(self) -> Mutant:
        target, counted = self.dice.choice(TARGETS)
        return Mutant(http(target, orjson.dumps(self._good()), {}), counted, f"target {target[:40]}")

    def _odd_header(self) -> Mutant:
        headers = self.dice.choice(ODD_HEADERS)
        return self._infer(orjson.dumps(self._good()), f"header {next(iter(headers))}", headers)

    def _other_method(self) -> Mutant:
        method = self.dice.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
        return Mutant(http(INFER, b"{}", {}, method), counted=True, kind=method)


_NOT_HTTP = (
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\nhost: m\r\n\r\n",
    b"POST /v2/models/m/infer HTTP/1.1\nhost: m\ncontent-length: 2\n\n{}",
    b"POST /v2/models/m/infer HTTP/1.0\r\n\r\n{}",
    b"\x00" * 500,
    b"A" * 100_000,
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    b"GET / HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n",
    b"CONNECT m:443 HTTP/1.1\r\nhost: m\r\n\r\n",
    b"GET / HTTP/1.1\r\n : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
)
# In place of "content-length: " in a good request.
_FRAMING = (
    b"content-length: -",
    b"content-length: 9999",
    b"content-length: 0",
    b"content-length: 1\r\ncontent-length: ",
    b"content-length: 99999999999999999999",
    b"transfer-encoding: chunked\r\ncontent-length: ",
    b"transfer-encoding: chunked\r\nx: ",
    b"transfer-encoding: gzip, chunked\r\nx: ",
    b"transfer-encoding: gzip\r\nx: ",
    b"connection: close\r\ncontent-length: ",
    b"x: ",
)
