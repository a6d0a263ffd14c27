"""Who may ask the explorer: real requests to a real server, and what a page of somebody else's could send."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from clipcifar.core.errors import EnvironmentFault
from clipcifar.explorer import serve
from clipcifar.explorer.gate import HEADERS, MAX_BODY
from clipcifar.explorer.session import Session
from tests.support import explored
from tests.support.explored import Answered, Asking

PAGES = ["/", "/images", "/confusion", "/map", "/state", "/explorer.js", "/picture/test/0", "/favicon.ico"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(explored.copied(tmp_path_factory, tmp_path_factory.mktemp("gate") / "w"))


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with explored.serving(session) as served:
        yield served


@pytest.fixture
def asking(address: str) -> Asking:
    return Asking(address)


def guarded(answered: Answered) -> Answered:
    """The same answer; asserts that it carries the policy, once, and says nothing of what serves."""
    kept = (
        {"cache-control": "private, max-age=3600"} if answered.headers["Content-Type"] == "image/png" else {}
    )
    for name, value in {**HEADERS, **kept}.items():
        assert answered.headers.get_all(name) == [value]
    assert answered.headers["Server"] is None
    assert "Access-Control-Allow-Origin" not in answered.headers
    return answered


@pytest.mark.parametrize("path", PAGES)
def test_whoever_opened_the_address_is_answered(asking: Asking, path: str) -> None:
    assert guarded(asking.ask("GET", path)).status in (200, 204)


def hosts(asking: Asking) -> list[str]:
    port = asking.host.partition(":")[2]
    other = int(port) + 1
    return [
        *("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{other}", f"127.0.0.1.:{port}"),
        *(
            f"localhost.:{port}",
            f"127.0.0.1:{port}.",
            f"127.0.0.1:0{port}",
            f"[::1]:{port}",
            f"0.0.0.0:{port}",
        ),
        *(f"127.1:{port}", f"2130706433:{port}", f"127.0.0.1:{port}@evil.example", f"a@127.0.0.1:{port}", ""),
        *(
            f"LOCALHOST.evil:{port}",
            f"127.0.0.1:{port}/",
            f"127.0.0.1:{port}#",
            "caf\u00e9",
            "null",
        ),
    ]


def test_another_host_is_refused_on_every_page_with_and_without_the_token(asking: Asking) -> None:
    """A name that is made to resolve to this machine gives its own page no more than that."""
    for host in hosts(asking):
        for path in ("/", "/state", f"/?token={asking.token}", "/nothing"):
            refused = guarded(asking.ask("GET", path, Host=host, Origin=None))
            assert refused.status == 421, (host, path)
            assert "Set-Cookie" not in refused.headers
            assert asking.token not in refused.text


def test_both_names_of_this_machine_are_its_own(asking: Asking) -> None:
    port = asking.host.partition(":")[2]
    for host in (asking.host, f"localhost:{port}"):
        assert guarded(asking.ask("GET", "/", Host=host, Origin=f"http://{host}")).status == 200


def test_a_page_of_another_origin_is_refused(asking: Asking) -> None:
    port = asking.host.partition(":")[2]
    origins = [
        *(
            "null",
            "",
            "https://evil.example",
            f"https://{asking.host}",
            "http://127.0.0.1",
            f"http://localhost:{port}",
        ),
        *(
            f"http://127.0.0.1:{int(port) + 1}",
            f"http://{asking.host}/",
            f"http://{asking.host}.evil.example",
        ),
        *(f" http://{asking.host}, http://evil.example", f"HTTP://{asking.host}", "file://"),
    ]
    for origin in origins:
        for method, path in (
            ("GET", "/"),
            ("POST", "/try"),
            ("GET", f"/?token={asking.token}"),
            ("POST", "/lasso"),
        ):
            refused = guarded(asking.ask(method, path, "line=a", Origin=origin))
            assert refused.status == 403, (origin, method, path)
            assert "Set-Cookie" not in refused.headers


def test_what_a_browser_sends_for_another_site_is_refused_but_for_the_address_itself(asking: Asking) -> None:
    for site in ("cross-site", "same-site", "whatever"):
        assert guarded(asking.ask("GET", "/picture/test/0", Origin=None, Sec_Fetch_Site=site)).status == 403
        assert guarded(asking.ask("POST", "/undo", "", Sec_Fetch_Site=site)).status == 403
    for site in ("same-origin", "none"):
        assert asking.ask("GET", "/", Origin=None, Sec_Fetch_Site=site).status == 200
    clicked = asking.ask(
        "GET", f"/?token={asking.token}", Origin=None, Sec_Fetch_Site="cross-site", Cookie=None
    )
    assert guarded(clicked).status == 200  # a link in a mail or a notebook
    assert asking.token not in clicked.text


def tokens(token: str) -> list[str]:
    swapped = "b" if token[0] == "a" else "a"
    return [
        "x",
        token[:-1],
        token + "x",
        token + token,
        swapped + token[1:],
        token.swapcase(),
        f"%00{token}",
        "%C3%A9",
    ]


def test_without_the_token_nothing_is_answered(asking: Asking) -> None:
    for path in (*PAGES, "/nothing", "/lasso"):
        for method in ("GET", "POST"):
            refused = guarded(asking.ask(method, path, Cookie=None))
            assert (refused.status, "clipcifar explore" in refused.text) == (401, True)
    for token in tokens(asking.token):
        refused = guarded(asking.ask("GET", f"/?token={token}", Cookie=None))
        assert refused.status == 401, token
        assert "Set-Cookie" not in refused.headers
        assert guarded(asking.ask("GET", f"/?token={token}")).status == 401  # nor beside the right cookie


@pytest.mark.parametrize(
    "others", ['theme={"x": 1}', "a[0]=1", "x@y=1", "\u00e9=\u00ff", "bare", ";;=;", '"']
)
def test_what_other_servers_of_this_machine_have_set_locks_nobody_out(asking: Asking, others: str) -> None:
    own = f"clipcifar-{asking.host.partition(':')[2]}={asking.token}"
    for cookies in (f"{others}; {own}", f"{own}; {others}"):
        assert guarded(asking.ask("GET", "/", Cookie=cookies)).status == 200, cookies


def test_another_cookie_is_refused(asking: Asking) -> None:
    port, token = int(asking.host.partition(":")[2]), asking.token
    cookies = [
        *(f"clipcifar-{port}={token}x", f"clipcifar-{port}={token[:-1]}", f"clipcifar-{port}=", "", ";;=;"),
        *(
            f"clipcifar-{port + 1}={token}",
            f"clipcifar={token}",
            f"CLIPCIFAR-{port}={token}",
            f"x={token}",
            token,
        ),
        *(
            f"clipcifar-{port}={token}; clipcifar-{port}=x",
            f"clipcifar-{port}=\u00e9",
            "\u00e9=\u00ff",
            "a" * 9000,
        ),
    ]
    for cookie in cookies:
        assert guarded(asking.ask("GET", "/state", Cookie=cookie)).status == 401, cookie
    among = f"clipcifar-{port + 1}=x; theme=dark; {asking.cookie}; a=b"  # of other servers of this machine
    assert asking.ask("GET", "/state", Cookie=among).status == 200


def test_the_address_gives_a_cookie_that_no_script_and_no_other_site_has_and_leads_on(asking: Asking) -> None:
    entered = guarded(asking.ask("GET", f"/?token={asking.token}", Cookie=None, Origin=None))
    assert entered.status == 200
    (cookie,) = entered.headers.get_all("Set-Cookie")
    name, *rest = [part.strip() for part in cookie.split(";")]
    assert name == asking.cookie
    assert set(rest) == {"HttpOnly", "SameSite=Strict", "Path=/"}
    assert 'content="0;url=/"' in entered.text
    assert asking.ask("GET", "/", Cookie=name).status == 200


def test_the_token_is_long_drawn_anew_and_on_no_page(session: Session, asking: Asking) -> None:
    assert len(asking.token) >= 32
    with explored.serving(session) as again:
        assert Asking(again).token != asking.token
    for path in ("/", "/images", "/map", "/explorer.js"):
        assert asking.token not in asking.page(path)


def test_the_policy_lets_nothing_in_that_is_not_the_explorers_own(asking: Asking) -> None:
    policy = asking.ask("GET", "/").headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert set(directives.values()) == {"'none'", "'self'"}
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert "unsafe" not in policy
    assert "data:" not in policy


@pytest.mark.parametrize("path", ["/", "/images", "/map", "/nothing", "/images?by=x"])
def test_no_page_needs_more_than_the_policy_allows(asking: Asking, path: str) -> None:
    text = asking.ask("GET", path).text
    assert re.findall(r"<script(?![^>]* src=\"/explorer\.js\")[^>]*>", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:|https?://", text) == []


def test_a_body_beyond_the_limit_is_refused_unread_and_one_at_the_limit_is_read(asking: Asking) -> None:
    assert asking.ask("POST", "/lasso", b" " * (MAX_BODY - 2) + b"[]").status == 400  # no outline
    assert guarded(asking.ask("POST", "/lasso", b"", Content_Length=str(MAX_BODY + 1))).status == 413
    assert guarded(asking.ask("POST", "/try", b"", Content_Length="9" * 19)).status == 413


def test_a_body_of_unknown_length_is_refused(asking: Asking) -> None:
    refused = asking.ask("POST", "/lasso", iter([b"[]"]), encode_chunked=True, Transfer_Encoding="chunked")
    assert guarded(refused).status == 413


BODIES = [
    *(
        b"",
        b"line=",
        b"line=+++",
        b"line=%00",
        b"\xff\xfe",
        b"=&=&&&",
        b"line=a&on=val",
        b"line=%ff",
        b"LINE=a",
    ),
    *(b"a=b;" * 1000, b"line=" + b"x" * 400_000, b"&" * 400_000, b"line={classname}&on=..%2Fx", b"on=test"),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_no_form_is_too_odd_for_an_answer(asking: Asking, body: bytes) -> None:
    for path in ("/try", "/save", "/undo"):
        answered = guarded(asking.ask("POST", path, body))
        assert answered.status == 400, answered.text[:500]
        assert 'role="alert"' in answered.text


LASSOS = [
    b"",
    b"\xff",
    b"null",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"a"',
    b"[[0,0],[1,1e400],[2,2]]",
    b"[[1" + b"0" * 400 + b",0]]",
]


def test_a_lasso_gathers_what_the_maps_filters_show(asking: Asking, session: Session) -> None:
    results = session.state().results
    everything = json.dumps([[-9, -9], [9, -9], [9, 9], [-9, 9]]).encode()
    for split, of_split in (("train", results.images.train), ("test", results.images.test)):
        inside = int((of_split.labels == 3).sum())
        text = asking.ask("POST", f"/lasso?only={split}&label=3", everything).text
        assert f"<h2>{inside} images inside</h2>" in text
        assert f"{results.class_names[3]} {inside}</p>" in text  # and no other class


@pytest.mark.parametrize("body", LASSOS, ids=lambda body: repr(body[:20]))
def test_no_lasso_is_too_odd_for_an_answer(asking: Asking, body: bytes) -> None:
    assert guarded(asking.ask("POST", "/lasso", body)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(
            ("HEAD", "/", 200),
            ("HEAD", "/picture/test/0", 200),
            ("PUT", "/", 405),
            ("DELETE", "/images", 405),
        ),
        *(("OPTIONS", "/", 405), ("PATCH", "/save", 405), ("GET", "/try", 405), ("GET", "/undo", 405)),
        *(("GET", "/save", 405), ("GET", "/lasso", 405), ("POST", "/", 405), ("POST", "/images", 405)),
        *(("TRACE", "/", 405), ("HEAD", "/undo", 405), ("BREW", "/map", 405)),
    ],
)
def test_no_method_does_more_than_it_should(asking: Asking, method: str, path: str, status: int) -> None:
    answered = guarded(asking.ask(method, path))
    assert answered.status == status
    assert not (method == "HEAD" and answered.body)


PATHS = [
    *(
        "/picture/../../etc/passwd",
        "/picture/%2e%2e/%2e%2e/etc/passwd",
        "/picture/test/-1",
        "/picture/test/1.0",
    ),
    *("/picture/test/99999999999", f"/picture/test/{'9' * 5000}", "/picture/test/", "/picture/test/397"),
    *(
        "/picture/evil/0",
        "/picture/test/%D9%A1",
        "/picture/test/%C2%B2",
        "/picture/test/0%00",
        "/picture/test/0/..",
    ),
    *("/image/evil/0", "/image/__class__/0", "/image/attributes/0", "/image/train/700", "/image/train/0x0"),
    *("/../clipcifar/explorer/gate.py", "/..%2f..%2fparams.yaml", "/page.css/../frame.html", "/frame.html"),
    *(
        "//evil.example/",
        "/explorer.js%00.css",
        "/data/dataset.h5",
        "/%",
        "/%ff",
        "/images?label=10",
        "/images?by=",
    ),
    *("/images?split=..%2Fx", "/images?page=1000000000", "/images?called=%D9%A1", "/confusion?by=nobody"),
    *("/images?order=%ff", "/images?split=val", "/confusion?by=%00", "/images?outcome=x&against=gda"),
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_nowhere_is_a_page_that_says_so(asking: Asking, path: str) -> None:
    answered = guarded(asking.ask("GET", path))
    assert answered.status in (400, 404), answered.text[:300]
    assert answered.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "root:" not in answered.text
    assert "clipcifar-dataset" not in answered.text


def test_a_field_is_told_back_as_text(asking: Asking) -> None:
    odd = '"><script>alert(1)</script>'
    for answered in (
        asking.ask("GET", "/images?by=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
        asking.post("/try", line=odd, on=odd),
        asking.post("/save", name=odd),
    ):
        assert answered.status == 400
        assert "<script>alert" not in answered.text


OWN, EVIL = "Host: {host}", "Host: evil.example"
SENT_RAW = {  # the lines of a request that holds the right cookie
    "two hosts": ["GET / HTTP/1.1", OWN, EVIL],
    "two hosts, its own last": ["GET / HTTP/1.1", EVIL, OWN],
    "no host": ["GET / HTTP/1.1"],
    "no host of old": ["GET / HTTP/1.0"],
    "two origins": ["GET / HTTP/1.1", OWN, "Origin: http://{host}", "Origin: null"],
    "two origins, its own last": ["GET / HTTP/1.1", OWN, "Origin: http://evil", "Origin: http://{host}"],
    "two sites": ["GET / HTTP/1.1", OWN, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none"],
    "a whole address": ["GET http://evil.example/ HTTP/1.1", EVIL],
    "bytes beyond ASCII in the host": ["GET / HTTP/1.1", OWN + "\xff\xe9"],
    "bytes beyond ASCII in the origin": ["GET / HTTP/1.1", OWN, "Origin: \xff\xfe"],
    "bytes beyond ASCII in the token": ["GET /?token=\xff\xfe HTTP/1.1", OWN],
    "bytes beyond ASCII in a cookie": ["GET / HTTP/1.1", OWN, "Cookie: clipcifar\xff=\xe9"],
    "a length that is none": ["POST /try HTTP/1.1", OWN, "Content-Length: \xb2"],
    "a length below none": ["POST /try HTTP/1.1", OWN, "Content-Length: -1"],
    "a length of many digits": ["POST /try HTTP/1.1", OWN, "Content-Length: " + "9" * 5000],
    "two lengths": ["POST /undo HTTP/1.1", OWN, "Content-Length: 0", "Content-Length: 1"],
    "a length and pieces": ["POST /undo HTTP/1.1", OWN, "Content-Length: 3", "Transfer-Encoding: chunked"],
    "folded": ["GET / HTTP/1.1", OWN, " evil.example"],
    "no HTTP": ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    "an upgrade elsewhere": ["GET / HTTP/1.1", EVIL, "Upgrade: websocket", "Connection: Upgrade"],
}


def sent_raw(asking: Asking, lines: list[str]) -> bytes:
    sent = "\r\n".join([*lines, f"Cookie: {asking.cookie}", "Connection: close", "", ""])
    return asking.raw(sent.replace("{host}", asking.host).encode("latin-1"))


@pytest.mark.parametrize("lines", SENT_RAW.values(), ids=SENT_RAW)
def test_bytes_that_no_browser_sends_are_refused_and_nothing_fails(asking: Asking, lines: list[str]) -> None:
    answered = sent_raw(asking, lines)
    assert re.match(rb"HTTP/1\.1 4\d\d ", answered), answered[:200]
    assert b"<main" not in answered


def test_the_same_bytes_with_nothing_odd_are_answered(asking: Asking) -> None:
    assert b"<main" in sent_raw(asking, ["GET / HTTP/1.1", OWN])


def test_a_refusal_reads_as_text(asking: Asking) -> None:
    refused = asking.ask("GET", "/", Cookie=None)
    assert refused.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_it_listens_on_this_machine_alone() -> None:
    with serve.bound(0) as listening:
        name, port = listening.getsockname()
        assert name == "127.0.0.1"
        assert listening.family == socket.AF_INET
        with socket.create_connection((name, port)):
            pass
        for other in own_addresses():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((other, port))


def own_addresses() -> list[str]:
    """Others that this machine answers to: all of 127/8 does on Linux, and whatever its name resolves to."""
    named = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return ["127.0.0.2", *sorted(named - {"127.0.0.1"})]


def test_a_port_that_is_taken_is_told_with_what_to_do(session: Session) -> None:
    said: list[Any] = []
    with serve.bound(0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=str(port)) as refused:
            serve.serve(session, port=port, say=said.append)
    assert "--port" in refused.value.fix
    assert said == []  # no address is promised


def test_a_port_can_be_had_again_at_once(asking: Asking) -> None:
    with serve.bound(0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as talking:
            accepted, _ = listening.accept()
            accepted.close()  # first, so that the port rests with this side
            talking.recv(1)
    with serve.bound(port) as listening:
        assert listening.getsockname()[1] == port


def test_what_fails_within_carries_the_policy_too(
    asking: Asking, session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(session, "state", bug)
    failed = guarded(asking.ask("GET", "/"))
    assert failed.status == 500
    assert "ZeroDivisionError" not in failed.text
