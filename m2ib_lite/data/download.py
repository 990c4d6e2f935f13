"""Images from addresses that a table names: bounded in time and size, from public addresses only, kept once fetched."""

import http.client
import ipaddress
import os
import socket
import ssl
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from .images import open_image

SECONDS = 20  # for a whole fetch, redirects included; looking up names comes on top, for which the system has its own limit
MOST_BYTES = 30_000_000
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "m2ib_lite", "Accept": "image/*", "Connection": "close"}
IN_PATHS = "/%:@!$&'()*+,;=~[]"  # what an address may hold as it is
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


def open_url(url):
    """The image at an http(s) address, as `open_image` gives it.

    It is kept in the folder m2ib_lite of the user's cache ($XDG_CACHE_HOME or ~/.cache), which may be deleted at any time.
    Proxies are not used.  OSError where it cannot be fetched, ValueError where what came is no image.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "m2ib_lite"
    kept = folder / sha256(url.encode(errors="backslashreplace")).hexdigest()
    if not kept.exists():
        try:
            content = fetch(url)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise OSError(f"{url} cannot be fetched ({error}): take the pair out, or give the file itself") from error
        return keep(content, kept, url)
    return open_image(kept)


def keep(content, kept, url):
    """Write a file whole or not at all, and only where it is an image.  -> the image"""
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part = Path(folder) / kept.name
            part.write_bytes(content)
            image = open_image(part)
            part.replace(kept)
    except ValueError as error:
        why = error.__cause__ or error
        raise ValueError(f"what {url} answered is no image that can be read ({why}): take the pair out") from error
    return image


def fetch(url):
    """The bytes at an http(s) address, each redirect checked as the address itself.  OSError or ValueError otherwise."""
    deadline = time.monotonic() + SECONDS
    for _ in range(1 + MOST_REDIRECTS):
        content, url = ask(url, deadline)
        if url is None:
            return content
    raise OSError(f"it redirects more than {MOST_REDIRECTS} times")


def ask(url, deadline):
    """What one address answers before a time.monotonic(): (bytes, None), or (None, the address that it redirects to)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http:// or https:// address")
    host, secure = parts.hostname.encode("idna").decode(), parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    sock = open_socket(host, port, left(deadline))
    sock.settimeout(SECONDS)  # connecting had only its share of them
    if secure:
        sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(host, port)
    connection.sock = sock
    path = quote(parts.path or "/", safe=IN_PATHS) + (parts.query and "?" + quote(parts.query, safe=IN_PATHS + "?"))
    with within(left(deadline), sock):
        if secure:
            sock.do_handshake()
        connection.request("GET", path, headers=HEADERS)
        response = connection.getresponse()
        if response.status in REDIRECTS:
            return None, urljoin(url, response.headers.get("Location", ""))
        return read_whole(response), None


def left(deadline):
    """The seconds until then, never 0, at which sockets do not wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def open_socket(host, port, seconds):
    """A socket to a host all of whose addresses, which share the seconds, are public; it goes to the very one that was checked."""
    found = list(dict.fromkeys(answer[4][0] for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    for address in found:
        if not is_public(address):
            raise OSError(f"{host} has the address {address}, which is not public")
    for address in found:
        try:
            return socket.create_connection((address, port), seconds / len(found))
        except OSError as error:
            failed = error
    raise failed


def is_public(address):
    """Whether an IP address is one of the public internet; an IPv6 address that stands for an IPv4 one is judged by that."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        ip = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or getattr(ip, "is_site_local", False))


@contextmanager
def within(seconds, sock):
    """Close a socket at the end, and cut it off after so many seconds however slowly it answers: TimeoutError."""
    late = threading.Event()

    def cut():
        late.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        sock.close()
        if late.is_set():
            raise TimeoutError(f"no whole answer within {SECONDS} seconds")


def read_whole(response):
    """The body of an answer that is all there and not too long.  OSError or ValueError otherwise."""
    if response.status != 200:
        raise OSError(f"it answers {response.status} {response.reason}")
    content = response.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} bytes")
    if response.length:  # bytes that were announced and did not come
        raise OSError(f"it ends {response.length} bytes too early")
    return content
