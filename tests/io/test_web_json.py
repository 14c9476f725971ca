"""JSON of servers that are busy, gone or somewhere else."""

from __future__ import annotations

import gzip
from email.utils import formatdate
from http.client import HTTPConnection

import pytest

from geoseg.errors import ReadError
from geoseg.io import web_json
from geoseg.io.web_json import read_json

GOOD = (200, {}, b'{"a": 1}')


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, which take no time."""
    found: list[float] = []
    monkeypatch.setattr(web_json.time, "sleep", found.append)
    return found


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({}, 1.0), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "9999"}, 60.0), ({"Retry-After": "soon"}, 1.0)],
)
def test_a_busy_server_is_asked_again(answering, waited, headers, wait_s):
    assert read_json(answering((503, headers, b""), GOOD)).content == {"a": 1}
    assert waited == [wait_s]


def test_a_server_may_say_until_when_it_is_busy(answering, waited):
    until = formatdate(web_json.time.time() + 30, usegmt=True)
    assert read_json(answering((429, {"Retry-After": until}, b""), GOOD)).content == {"a": 1}
    assert waited[0] == pytest.approx(30, abs=5)


def test_a_server_that_hangs_up_is_asked_again(answering, waited):
    assert read_json(answering((0, {}, b""), GOOD)).content == {"a": 1}
    assert waited == [1.0]


def test_a_server_that_stays_busy_is_given_up(answering, waited):
    with pytest.raises(ReadError, match="the server answers 503"):
        read_json(answering((503, {}, b"")))
    assert waited == list(web_json.WAITS_S)


def test_what_is_forbidden_is_not_asked_again(answering, waited):
    with pytest.raises(ReadError, match="the server answers 403"):
        read_json(answering((403, {}, b"")))
    assert not waited


def test_what_has_moved_is_found_and_says_where(answering):
    there = answering((200, {}, gzip.compress(GOOD[2])))
    moved, handed_on = (answering((code, {"Location": f"{there}/new/catalog.json"}, b"")) for code in (301, 302))
    assert read_json(f"{moved}/old.json") == ({"a": 1}, f"{there}/new/catalog.json")
    assert read_json(f"{handed_on}/old.json") == ({"a": 1}, f"{handed_on}/old.json")  # where its neighbours are


def test_an_address_that_is_none_is_told_at_once(waited):
    with pytest.raises(ReadError, match="cannot be read"):
        read_json("http://127.0.0.1:9/a b.json")
    assert not waited


@pytest.mark.parametrize("end", [ConnectionResetError("reset by peer"), TimeoutError("timed out")])
def test_a_server_that_drops_a_connection_while_it_is_made_is_asked_again(answering, waited, monkeypatch, end):
    ends, connect = [end], HTTPConnection.connect

    def dropped(connection: HTTPConnection) -> None:
        if ends:
            raise ends.pop()
        connect(connection)

    monkeypatch.setattr(HTTPConnection, "connect", dropped)
    assert read_json(answering(GOOD)).content == {"a": 1}
    assert waited == [1.0]


def test_nobody_there_is_told_at_once(waited):
    with pytest.raises(ReadError, match="cannot be read: .*refused"):
        read_json("http://127.0.0.1:9/a.json")
    assert not waited


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(GOOD[2], mtime=0)[:-6],
        gzip.compress(GOOD[2], mtime=0)[:12] + b"\xff" * 20,
        web_json.GZIP + b"no such method",
        b"[" * 100_000,
        b"<html>",
    ],
    ids=["cut off", "overwritten", "unknown method", "deep", "html"],
)
def test_an_answer_that_is_damaged_or_no_json_is_one_line(answering, body):
    with pytest.raises(ReadError, match=r"c\.json (cannot be read|is no JSON|is nested too deeply)") as told:
        read_json(answering((200, {}, body)) + "/c.json")
    assert "\n" not in str(told.value)


def test_a_server_that_hands_on_to_itself_is_one_line(answering):
    with pytest.raises(ReadError, match=r"the server answers 302 .*infinite loop") as told:
        read_json(answering((302, {"Location": "/a.json"}, b"")))
    assert "\n" not in str(told.value)


def test_letters_of_any_script_are_sent_as_bytes(answering):
    assert read_json(answering(GOOD) + "/größe/каталог.json?a=%20ü").content == {"a": 1}
    assert web_json._in_ascii("http://bücher.example/ü?q=%20") == "http://xn--bcher-kva.example/%C3%BC?q=%20"
