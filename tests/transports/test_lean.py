"""What stands in for modules that paho-mqtt imports and a plain connection does not use: only memory tells.

Most of it is seen in processes of their own, since this one has loaded ssl long ago.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from brokers import Mosquitto, free_port
from enrolled import made, served, tls

from edgefl.transports import lean

HEAVY = ["ssl", "_ssl", "hashlib", "_hashlib", "urllib.request", "http.client", "email"]
LINK = """
import random, sys, threading
from edgefl.transports.mqtt import MqttLink, TlsConfig, Up

def loaded():
    return [name for name in {heavy} if name in sys.modules]

def connected(url, tls=None):
    up = threading.Event()
    heard = lambda event: isinstance(event, Up) and up.set()
    link = MqttLink(url, "one", on_event=heard, rng=random.Random(1), tls=tls)
    link.start()
    assert up.wait(20.0)
    return link
"""


def run(code: str, *words: object, **environment: str) -> str:
    """What `code` prints in a Python of its own, which has what LINK defines."""
    text = LINK.format(heavy=HEAVY) + code
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, words)], capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_class_by_which_tls_is_told_is_one_of_ssl() -> None:
    assert all(isinstance(getattr(ssl, name), type) for name in lean.OF_TLS)
    assert all(getattr(lean.ssl, name) is getattr(ssl, name) for name in lean.OF_TLS)


def test_paho_has_no_module_of_ours_but_those_that_it_imports_itself() -> None:
    """A paho that no longer imports one of them under this name would get it from us for nothing, or import it."""
    code = """
from paho.mqtt import client
from edgefl.later import Later
print(sorted(name for name, value in vars(client).items() if isinstance(value, Later)))
"""
    assert run(code) == "['hashlib', 'ssl', 'urllib']"


def test_the_import_of_a_link_leaves_no_trace() -> None:
    assert run("print(loaded(), sys.modules.get('ssl'))") == "[] None"


def test_what_is_imported_later_is_the_real_module() -> None:
    code = """
import ssl, hashlib, urllib.request, urllib.parse, http.client, email
assert type(ssl) is type(hashlib) is type(urllib.request) is type(sys)
context = ssl.create_default_context()
assert ssl.SSLContext.__module__ == "ssl" and isinstance(context, ssl.SSLContext)
print(hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)[:2].hex(), urllib.request.Request("http://a/").host)
"""
    assert run(code) == f"{hashlib.scrypt(b'', salt=b'', n=2, r=1, p=1)[:2].hex()} a"


def test_modules_that_are_loaded_already_stay_what_they_are() -> None:
    code = """
import ssl, hashlib
for name in [name for name in sys.modules if name.startswith(("edgefl", "paho"))]:
    del sys.modules[name]
import edgefl.transports.mqtt, paho.mqtt.client
print(sys.modules["ssl"] is ssl, paho.mqtt.client.hashlib is hashlib, paho.mqtt.client.ssl is ssl)
"""
    assert run(code) == "True True True"


def test_a_plain_connection_loads_none_of_them() -> None:
    code = """
link = connected(sys.argv[1])
for number in range(50):  # more than may be in flight, so that paho looks for packets that have not come
    link.publish("t", b"x")
link.stop(5.0)
print(loaded())
"""
    with Mosquitto() as broker:
        assert run(code, broker.url) == "[]"


def test_a_connection_that_is_refused_loads_none_of_them() -> None:
    code = """
from edgefl.transports.mqtt import Down
down = threading.Event()
link = MqttLink(sys.argv[1], "one", on_event=lambda event: down.set(), rng=random.Random(1), backoff_cap_s=0.1)
link.start()
down.wait(0.5)
link.stop(0.0)
print(loaded())
"""
    assert run(code, f"mqtt://127.0.0.1:{free_port()}") == "[]"


def test_tls_is_the_real_one(tmp_path: Path) -> None:
    code = """
link = connected(sys.argv[1], TlsConfig(*sys.argv[2:5]))
link.stop(5.0)
print("ssl" in loaded(), "_ssl" in loaded(), type(sys.modules["ssl"]) is type(sys))
"""
    port = free_port()
    made(tmp_path / "keys", "pi-01", port=port)
    files = tls(tmp_path / "keys" / "pi-01")
    with Mosquitto(served(tmp_path / "keys")):
        assert run(code, f"mqtts://localhost:{port}", files.ca, files.cert, files.key) == "True True True"


SOCKS = '''
"""What paho-mqtt uses of PySocks."""
import socket
HTTP, SOCKS4, SOCKS5 = 3, 1, 2

def get_default_proxy():
    return None

def create_connection(address, timeout=None, source_address=None, proxy_type=None, proxy_addr=None, proxy_port=None):
    print("through", proxy_type, proxy_addr, proxy_port)
    return socket.create_connection(address, timeout, source_address)
'''


def test_a_proxy_in_the_environment_is_used(tmp_path: Path) -> None:
    """As paho does it where PySocks is installed."""
    (tmp_path / "socks.py").write_text(SOCKS)
    code = "connected(sys.argv[1]).stop(5.0)"
    proxy: dict[str, Any] = {"mqtt_proxy": "socks://proxy.example:1080", "PYTHONPATH": str(tmp_path)}
    with Mosquitto() as broker:
        assert run(code, broker.url, **proxy) == "through 2 proxy.example 1080"
        assert run(code, broker.url, PYTHONPATH=str(tmp_path)) == ""


def test_websockets_get_their_hash() -> None:
    """We do not offer them, but the paho client that others find in this process does."""
    code = """
from paho.mqtt import client
print(client.hashlib.sha1(b"").hexdigest(), client.urllib.parse.urlparse("a://b").netloc)
print(client.urllib.request.__name__)
"""
    assert run(code).split() == [hashlib.sha1(b"").hexdigest(), "b", "urllib.request"]
