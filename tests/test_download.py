import io
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from m2ib_lite.data import download, load_pairs
from m2ib_lite.data.download import is_public, open_url

ASKED = []  # the paths that the server was asked for


def png(size=(7, 5)):
    file = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


class Pictures(BaseHTTPRequestHandler):
    """What goes wrong on the web, by path."""

    def do_GET(self):
        ASKED.append(self.path)
        getattr(self, self.path.strip("/").split("?")[0].partition("/")[0].replace("%20", "_"), self.missing)()

    def answer(self, content, status=200, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length != "unsaid":
            self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def missing(self):
        self.answer(b"gone", 404)

    def good(self):
        self.answer(png())

    def a_picture(self):
        self.answer(png())

    def page(self):
        self.answer(b"<html>this picture is not available</html>")

    def cut(self):
        self.answer(png()[:40], length=len(png()))

    def long(self):
        self.answer(b"x" * 5000, length="unsaid")

    def moved(self):
        self.answer(b"", 302, Location="/good")

    def round_and_round(self):
        self.answer(b"", 301, Location="round_and_round")

    def slow_round(self):
        time.sleep(0.3)
        self.answer(b"", 301, Location="slow_round")

    def to_file(self):
        self.answer(b"", 301, Location="file:///etc/passwd")

    def to_inside(self):
        self.answer(b"", 307, Location="http://169.254.169.254/latest/meta-data")

    def slow(self):
        self.drip(b"HTTP/1.0 200 OK\r\n\r\n" + png() + bytes(500))

    def slow_header(self):
        self.drip(b"HTTP/1.0 200 OK\r\nX-Header: " + b"x" * 500)

    def drip(self, content):
        for byte in content:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch, tmp_path):
    """The address of a local server of Pictures, its address taken for a public one; and a cache of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    public = download.is_public
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1" or public(address))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ASKED.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "m2ib_lite").glob("*"))


def test_a_picture_is_fetched_once_and_kept_whole(site, tmp_path):
    assert open_url(f"{site}/good").size == open_url(f"{site}/good").size == (7, 5)
    assert ASKED == ["/good"]
    (file,) = kept(tmp_path)
    assert (file.read_bytes(), file.suffix) == (png(), "")
    assert open_url(f"{site}/moved").size == open_url(f"{site}/a picture?größe=1").size == (7, 5)
    assert ASKED[1:] == ["/moved", "/good", "/a%20picture?gr%C3%B6%C3%9Fe=1"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("none", OSError, "answers 404"),
        ("page", ValueError, "is no image that can be read"),
        ("cut", OSError, "ends .* bytes too early"),
        ("long", OSError, "longer than 4,000 bytes"),
        ("round_and_round", OSError, "redirects more than 5 times"),
        ("to_file", OSError, "is no http:// or https:// address"),
        ("to_inside", OSError, r"169\.254\.169\.254, which is not public"),
        ("slow", OSError, "no whole answer within 0.5 seconds"),
        ("slow_round", OSError, "no whole answer within 0.5 seconds"),
        ("slow_header", OSError, "no whole answer within 0.5 seconds"),
    ],
)
def test_what_cannot_be_fetched_is_named_and_nothing_is_kept(site, tmp_path, monkeypatch, path, error, message):
    monkeypatch.setattr(download, "MOST_BYTES", 4000)
    monkeypatch.setattr(download, "SECONDS", 0.5)
    (tmp_path / "cc.tsv").write_text(f"a cat\t{site}/{path}\na dog\t{site}/good\n")
    data = load_pairs(tmp_path / "cc.tsv")
    started = time.monotonic()
    with pytest.raises(error, match=rf"pair 'line-1' \(cc\.tsv, line 1\): .*{site}/{path} .*{message}.*: take the pair out"):
        data[0]
    assert time.monotonic() - started < 10  # the whole slow answers would take twenty-five seconds
    assert not kept(tmp_path)
    assert data[1].image.size == (7, 5)


def test_https_asks_for_a_certificate(site, tmp_path):
    with pytest.raises(OSError, match="SSL"):
        open_url(f"{site.replace('http', 'https')}/good")
    assert not ASKED


def test_a_host_that_is_not_public_is_never_connected_to(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)  # it is never served: a connection would wait
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1"):
        with pytest.raises(OSError, match=r"(127\.0\.0\.1|::1), which is not public"):
            open_url(f"http://{host}:{server.server_port}/good")
    server.server_close()


def test_one_address_that_is_not_public_is_enough_and_the_checked_one_is_used(monkeypatch):
    answers, connected = ["93.184.216.34", "10.0.0.1"], []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (address, 80)) for address in answers])
    monkeypatch.setattr(socket, "create_connection", lambda address, _: connected.append(address))
    with pytest.raises(OSError, match=r"rebound\.example has the address 10\.0\.0\.1, which is not public"):
        download.open_socket("rebound.example", 80, 9)
    answers.pop()
    download.open_socket("rebound.example", 80, 9)
    assert connected == [("93.184.216.34", 80)]


def test_an_unreachable_address_gives_way_to_the_next(monkeypatch):
    def connect(address, seconds):
        assert seconds == 9 / len(found)
        if address[0] == "2606:4700::1":
            raise OSError("no route to host")
        return address

    found = [(2, 1, 6, "", (address, 80)) for address in ("2606:4700::1", "93.184.216.34")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert download.open_socket("both.example", 80, 9) == ("93.184.216.34", 80)
    found.pop()
    with pytest.raises(OSError, match="no route to host"):
        download.open_socket("both.example", 80, 9)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255"),
        *("224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1"),
        *("ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_addresses_that_are_public(address):
    assert is_public(address)


def test_a_file_that_could_not_be_written_leaves_nothing(site, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="disk full"):
        open_url(f"{site}/good")
    assert not kept(tmp_path)
