"""JSON from a file or a server, which may be busy for a moment, or have moved."""

from __future__ import annotations

import gzip
import json
import logging
import time
import zlib
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from geoseg.errors import MissingInputError, ReadError
from geoseg.io.handles import one_line
from geoseg.io.stamps import unsigned

log = logging.getLogger(__name__)

WEB = ("http://", "https://")

GZIP = b"\x1f\x8b"  # as which some stores send what they keep compressed

TIMEOUT_S = 60
"""Seconds of silence after which a server is given up."""

PASSING = (429, 500, 502, 503, 504)
"""Answers of a server that is busy, or being restarted."""

DROPPED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, TimeoutError)
"""Ends of a connection after which another one may do."""

WAITS_S = (1.0, 3.0, 9.0)
"""Seconds before asking again."""

LONGEST_WAIT_S = 60.0
"""Seconds that a server is waited for because it says so."""


class Document(NamedTuple):
    """JSON, and where it lies: for what has moved for good, that is not where it was asked for."""

    content: Any
    place: str


def read_json(place: str) -> Document:
    """The JSON at a path or an address; a server that is busy is asked again, three times.

    Raises:
        MissingInputError: There is nothing.
        ReadError: It cannot be read, or is no JSON.
    """
    if not place.startswith(WEB) and ("://" in place or place.startswith("/vsi")):
        raise ReadError(f"STAC is read from a file or over http and https, got {place}")
    try:
        found, where = _bytes(place)
    except FileNotFoundError as error:
        raise MissingInputError(f"{place} is not there; needed is a file of STAC JSON") from error
    except HTTPError as error:
        answer = " ".join(f"the server answers {error.code} {error.reason}".split())
        if error.code == 404:
            raise MissingInputError(f"{place} is not there: {answer}") from error
        raise ReadError(f"{place} cannot be read: {answer}") from error
    except (OSError, HTTPException, EOFError, zlib.error, ValueError) as error:
        raise ReadError(f"{place} cannot be read: {one_line(error)}") from error
    return Document(_content(found, place), where)


def _content(found: bytes, place: str) -> Any:
    """What the bytes of JSON hold.

    Raises:
        ReadError: They are no JSON, or lists within lists without end.
    """
    try:
        return json.loads(found)
    except ValueError as error:
        raise ReadError(f"{place} is no JSON: {one_line(error)}") from error
    except RecursionError as error:
        raise ReadError(f"{place} is nested too deeply; needed is a file of STAC JSON") from error


def _bytes(place: str) -> tuple[bytes, str]:
    if not place.startswith(WEB):
        return Path(place).expanduser().read_bytes(), place
    for wait_s in WAITS_S:
        try:
            return _answer(place)
        except HTTPError as error:
            if error.code not in PASSING:
                raise
            wait_s = max(wait_s, min(_asked_wait_s(error.headers.get("Retry-After")), LONGEST_WAIT_S))  # noqa: PLW2901
            log.warning("%s: the server answers %d; asking again in %.0f s", unsigned(place), error.code, wait_s)
        except InvalidURL:
            raise
        except (*DROPPED, HTTPException, URLError) as error:
            if isinstance(error, URLError) and not isinstance(error.reason, DROPPED):
                raise
            log.warning("%s: %s; asking again in %.0f s", unsigned(place), one_line(error), wait_s)
        time.sleep(wait_s)
    return _answer(place)


def _answer(place: str) -> tuple[bytes, str]:
    asked = Request(_in_ascii(place), headers={"Accept": "application/json, */*", "User-Agent": "geoseg"})  # noqa: S310 (http alone)
    moves = _Moves()
    try:
        with build_opener(moves).open(asked, timeout=TIMEOUT_S) as answer:
            found, where = bytes(answer.read()), str(answer.url) if moves.for_good else place
    except HTTPError as error:
        error.close()
        raise
    return (gzip.decompress(found) if found.startswith(GZIP) else found), where


def _in_ascii(place: str) -> str:
    """An address as it is sent: a host's letters by IDNA, others by their bytes (RFC 3987, section 3.1).

    >>> _in_ascii("https://host/größe.json?a=%20b"), _in_ascii("https://bücher.example/a")
    ('https://host/gr%C3%B6%C3%9Fe.json?a=%20b', 'https://xn--bcher-kva.example/a')
    """
    if place.isascii():
        return place
    host = urlsplit(place).netloc
    sent = place if host.isascii() else place.replace(host, host.encode("idna").decode(), 1)
    return "".join(letter if letter.isascii() else quote(letter) for letter in sent)


class _Moves(HTTPRedirectHandler):
    """Follows a server's word that something lies elsewhere, and notes whether that is for good.

    What has moved for good has its neighbours there too. Where a server only hands on to a store, they are asked for
    beside the address that was asked.
    """

    for_good = True

    def redirect_request(  # noqa: PLR0917 - as urllib calls it
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:  # fmt: skip
        self.for_good = self.for_good and code in (301, 308)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _asked_wait_s(text: str | None) -> float:
    """Seconds that a Retry-After header asks to wait: a number or a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return 0.0
    try:
        return float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return 0.0
