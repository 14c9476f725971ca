"""Small georeferenced files, and pixels that say where they are."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


@pytest.fixture
def write_tif(tmp_path: Path) -> Callable[..., str]:
    """Writes `(band, row, col)` pixels to a GeoTIFF: north-up UTM at 10 m unless told otherwise."""

    def write(
        name: str,
        pixels: Any,
        *,
        affine: Affine = UTM,
        crs: str | None = "EPSG:32612",
        names: tuple[str, ...] = (),
        **profile: Any,
    ) -> str:
        pixels = np.asarray(pixels)
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        path = tmp_path / name
        count, rows, cols = pixels.shape
        profile = {"driver": "GTiff", **profile}
        with rasterio.open(
            path, "w", width=cols, height=rows, count=count, dtype=pixels.dtype, crs=crs, transform=affine, **profile
        ) as file:
            file.write(pixels)
            for index, band in enumerate(names, start=1):
                file.set_band_description(index, band)
        return str(path)

    return write


@pytest.fixture
def encoded() -> Callable[..., np.ndarray]:
    """Pixels `(1, row, col)` whose value is `1 + row * 1000 + col`, so that no other place has it, and 0 is none."""

    def pixels(rows: int, cols: int, dtype: str = "int32") -> np.ndarray:
        return (1 + np.arange(rows)[:, None] * 1000 + np.arange(cols)[None, :])[None].astype(dtype)

    return pixels


@dataclass
class Served:
    """A server of one folder, and what was asked of it."""

    url: str
    size: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def bytes_sent(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


def handler(folder: Path, log: Served) -> type[BaseHTTPRequestHandler]:
    class Ranges(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            path = folder / self.path.partition("?")[0].lstrip("/")
            log.paths.append(f"{self.command} {self.path}")
            if "broken" in self.path:
                self.send_error(403)
                return
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            stop = min(int(asked[2]) + 1 if asked and asked[2] else len(data), len(data))
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.end_headers()
            if body:
                log.ranges.append((start, stop))
                self.wfile.write(data[start:stop])

        def log_message(self, *args):
            pass

    return Ranges


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Puts folders behind loopback servers that answer range requests, until the test ends."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(folder: Path, *, size: int = 0) -> Served:
        log = Served("", size)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder, log))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        log.url = f"http://127.0.0.1:{server.server_address[1]}"
        running.append((server, thread))
        return log

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """The address of a server that gives these answers one after the other, the last again and again."""
    running: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, headers, body = left.pop(0) if len(left) > 1 else left[0]
                if code == 0:
                    self.wfile.close()  # hangs up
                    return
                self.send_response(code)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
