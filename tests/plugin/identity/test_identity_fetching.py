"""Reading from other servers, real ones on loopback: bounds, deadlines, redirects, TLS."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ringfence.plugin.identity.errors import IdentityError
from ringfence.plugin.identity.fetching import HttpsFetcher, checked_url
from ringfence.plugin.identity.key_https import KeyAddress
from tests.plugin.identity.certificates import p256
from tests.plugin.identity.servers import Asked, Reply, serving


async def fetch(url: str, *, most: int = 100, timeout_s: float = 5, form: dict[str, str] | None = None) -> bytes:
    return await HttpsFetcher().fetch(url, headers={"x-test": "1"}, form=form, most=most, timeout_s=timeout_s)


async def refusal(answer: Reply, *, timeout_s: float = 5) -> str:
    with serving(lambda _: answer) as url:
        with pytest.raises(IdentityError) as refused:
            await fetch(url, timeout_s=timeout_s)
        assert refused.value.code.name == "identity.fetch_failed"
        return refused.value.message


async def test_a_get_and_a_post_are_answered() -> None:
    seen: list[Asked] = []

    def answer(asked: Asked) -> Reply:
        seen.append(asked)
        return Reply(body=b"x" * 100)

    with serving(answer) as url:
        assert await fetch(f"{url}/a?b=c") == b"x" * 100
        await fetch(url, form={"a": "b&c"})
    got, posted = seen
    assert (got.method, got.path, got.body) == ("GET", "/a?b=c", b"")
    assert (posted.method, posted.path, posted.body) == ("POST", "/", b"a=b%26c")
    assert seen[0].headers["x-test"] == "1"


async def test_anything_but_a_small_plain_answer_is_refused() -> None:
    assert "more than 100 bytes" in await refusal(Reply(body=b"x" * 101))
    assert "answered 302" in await refusal(Reply(302, headers={"location": "https://elsewhere.example/"}))
    assert "answered 404" in await refusal(Reply(404))
    assert "compressed" in await refusal(Reply(body=b"x", headers={"content-encoding": "gzip"}))
    assert "RemoteProtocolError" in await refusal(Reply(body=b"x", headers={"content-length": "9"}))


async def test_a_server_that_is_slow_or_away_fails_in_time() -> None:
    end = threading.Event()

    def slow(_: Asked) -> Reply:
        end.wait(10)
        return Reply()

    with serving(slow) as url:
        with pytest.raises(IdentityError) as late:
            await fetch(f"{url}/?secret=1", timeout_s=0.1)
        end.set()
    assert "secret" not in str(late.value)
    with pytest.raises(IdentityError) as away:
        await fetch(url)
    assert away.value.code.name == "identity.fetch_failed"


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/",
        "https:///x",
        "https://a@b/",
        "https://a/#b",
        "file:///a",
        "",
        "https://[",
        "http://10.0.0.1/",
    ],
)
def test_only_pinned_https_is_asked(url: str) -> None:
    with pytest.raises(IdentityError):
        checked_url(url, field="url")
    assert checked_url("http://127.0.0.1:80/", field="url")
    assert checked_url("https://issuer.example/", field="url")


def tls_server(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the file with its certificate."""
    key = p256()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    now = datetime.datetime.now(datetime.UTC)
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(loopback, critical=False).sign(key, hashes.SHA256())
    pem, private = folder / "server.pem", folder / "server.key"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


async def test_tls_is_verified_against_the_configured_authorities(tmp_path: Path) -> None:
    context, pem = tls_server(tmp_path)
    with serving(lambda _: Reply(body=b"{}"), tls=context) as url:
        assert await KeyAddress(url, HttpsFetcher(pem), timeout_s=5).load() == b"{}"
        with pytest.raises(IdentityError) as refused:
            await KeyAddress(url, HttpsFetcher(), timeout_s=5).load()
        assert refused.value.code.name == "identity.fetch_failed"
        with pytest.raises(IdentityError):
            await KeyAddress(url.replace("127.0.0.1", "localhost"), HttpsFetcher(pem), timeout_s=5).load()


def test_authorities_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as refused:
        HttpsFetcher(tmp_path / "absent")
    assert refused.value.code.name == "identity.settings_invalid"
