"""JSON from a file or a server, which may be busy for a moment, or have moved."""

from __future__ import annotations

import gzip
import json
import logging
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
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
        return Document(json.loads(found), where)
    except FileNotFoundError as error:
        raise MissingInputError(f"{place} is not there; needed is a file of STAC JSON") from error
    except HTTPError as error:
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 404:
            raise MissingInputError(f"{place} is not there: {answer}") from error
        raise ReadError(f"{place} cannot be read: {answer}") from error
    except (OSError, HTTPException) as error:
        raise ReadError(f"{place} cannot be read: {one_line(error)}") from error
    except ValueError as error:
        raise ReadError(f"{place} is no JSON: {one_line(error)}") from error


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
        except (ConnectionResetError, HTTPException, TimeoutError) as error:
            log.warning("%s: %s; asking again in %.0f s", unsigned(place), one_line(error), wait_s)
        time.sleep(wait_s)
    return _answer(place)


def _answer(place: str) -> tuple[bytes, str]:
    asked = Request(place, headers={"Accept": "application/json, */*", "User-Agent": "geoseg"})  # noqa: S310 (http alone)
    moves = _Moves()
    with build_opener(moves).open(asked, timeout=TIMEOUT_S) as answer:
        found, where = bytes(answer.read()), str(answer.url) if moves.for_good else place
    return (gzip.decompress(found) if found.startswith(GZIP) else found), where


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
