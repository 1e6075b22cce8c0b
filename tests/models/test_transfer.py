"""Network trouble: servers that refuse for now, break, lie or ask to wait, told and tried again as they ask."""

import errno
import http.server
import io
import json
import socket
import struct
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console

from fastsample.models.public import transfer as transfers
from fastsample.models.public.cards import card_named
from fastsample.models.public.download import download
from fastsample.models.public.known import DownloadError, target_of

CONTENT = bytes(range(256)) * 4000
HUB = "hf://me/tiny/sub/w 1.pt@refs/pr/1"


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the next of `server.answers[path]`, each a function of the handler, and the whole file after them."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        waiting = self.server.answers.get(self.path, [])
        (waiting.pop(0) if waiting else whole())(self)

    def log_message(self, *_):
        pass


def answer(status, body=b"", **headers):
    """An answer with these headers (`_` stands for `-`), and all of its body."""

    def give(handler):
        handler.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return give


def whole(**headers):
    return answer(200, CONTENT, ETag='"1"', **headers)


def rest(start, etag='"1"', **headers):
    there = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": etag, **headers}
    return answer(206, CONTENT[start:], **there)


def reset(count):
    """The connection is reset after so many bytes; before any answer for None."""

    def give(handler):
        if count is not None:
            answer(200, CONTENT[:count], ETag='"1"', Content_Length=len(CONTENT))(handler)
            handler.wfile.flush()
            time.sleep(0.05)  # what was sent before a reset may be lost
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.wfile = handler.rfile = io.BytesIO()

    return give


def silent(handler):
    time.sleep(0.5)


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = {}, []
        server.here = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", server.here)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


HUB_PATH = "/me/tiny/resolve/refs%2Fpr%2F1/sub/w%201.pt"
PLACES = {"hub": (HUB, HUB_PATH), "web": ("/w.pt", "/w.pt")}


def get(home, *urls, wait=0.01, **changes):
    """(the file or the error, what the console said) of a download from those places."""
    console = Console(file=io.StringIO(), width=500)
    card = card_named("edm-cifar10-uncond-vp").model_copy(update={"urls": urls, "page": "", **changes})
    try:
        found = download(card, home, lambda file, sha256: None, console, wait)
    except DownloadError as error:
        found = str(error)
        assert list(target_of(card, home).parent.glob("*.pkl")) == []
    return found, console.file.getvalue()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ([answer(429, Retry_After=0)] * 2, "429 Too Many Requests; tried again in 0 s, attempt 2 of 5"),
        ([answer(503)] * 4, "503 Service Unavailable; tried again in 0.08 s, attempt 5 of 5"),
        ([answer(502), answer(504), answer(500)], "504 Gateway Timeout; tried again in 0.02 s"),
        ([answer(429, RateLimit='"resolvers";r=0;t=0')], "tried again in 0 s"),
        ([answer(408)], "408 Request Timeout"),
        ([reset(None)], "no connection, or a broken one"),
        ([reset(0)], "no connection, or a broken one"),
        ([answer(200, CONTENT[:1000], Content_Length=len(CONTENT), ETag='"1"'), rest(1000)], "1000 of 1024000 bytes"),
        ([lambda handler: handler.wfile.write(b"nonsense\r\n\r\n")], "broken one"),
    ],
)  # fmt: skip
def test_what_passes_is_waited_for_and_said(trouble, told, place, server, tmp_path):
    url, path = PLACES[place]
    server.answers[path] = [*trouble]
    found, said = get(tmp_path, url if place == "hub" else server.here + url)
    assert Path(found).read_bytes() == CONTENT
    assert told in said
    assert server.answers[path] == []


def test_the_server_says_how_long_in_seconds_and_as_a_date(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(transfers, "sleep", waits.append)
    now = time.time()
    server.answers["/w.pt"] = [
        answer(503, Retry_After=7),
        answer(429, Retry_After=formatdate(now + 40, usegmt=True), Date=formatdate(now, usegmt=True)),
        answer(429, Retry_After=formatdate(now - 40, usegmt=True)),
        answer(429, Retry_After="soon"),
    ]
    assert Path(get(tmp_path, f"{server.here}/w.pt", wait=1.0)[0]).is_file()
    assert waits[0] == 7
    assert waits[1] == pytest.approx(40, abs=2)  # http.server sends a Date of its own too
    assert waits[2:] == [0, 8]


@pytest.mark.parametrize("asked", ["3600", "999999999999", formatdate(4e9, usegmt=True)])
def test_a_wait_without_an_end_is_not_waited_for(asked, server, tmp_path):
    server.answers["/w.pt"] = [answer(429, Retry_After=asked)] * 9
    begin = time.monotonic()
    found, said = get(tmp_path, f"{server.here}/w.pt", f"{server.here}/other.pt")
    assert time.monotonic() - begin < 2
    assert Path(found).read_bytes() == CONTENT
    assert "429 Too Many Requests" in said
    assert "; the next source is tried" in said


def test_trouble_that_stays_ends_with_its_reason(server, tmp_path):
    server.answers["/w.pt"] = [answer(503, b'{"error": "Model is   overloaded"}')] * 9
    found, said = get(tmp_path, f"{server.here}/w.pt")
    assert "the server answers 503 Service Unavailable: Model is overloaded" in found
    assert said.count("tried again") == 4
    assert len(server.asked) == 5


def test_a_server_that_says_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_TIMEOUT", 0.1)
    server.answers["/w.pt"] = [silent]
    found, said = get(tmp_path, f"{server.here}/w.pt")
    assert Path(found).is_file()
    assert "timed out; tried again" in said


def test_a_refused_connection_is_tried_again(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/w.pt"
    found, said = get(tmp_path, gone, f"{server.here}/w.pt")
    assert Path(found).is_file()
    assert said.count("Connection refused; tried again in") == 4


def test_a_name_that_nobody_knows_is_not_tried_again(tmp_path):
    found, said = get(tmp_path, "http://nobody.invalid/w.pt", wait=9.0)
    assert "no connection" in found
    assert "tried again" not in said


@pytest.mark.parametrize(
    ("status", "headers", "body", "told"),
    [
        (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model me/tiny is restricted."}, b"",
         "401 Unauthorized: Access to model me/tiny is restricted. (`hf auth login`, or HF_TOKEN,"),
        (403, {}, b'{"error": "You are not on the list"}', "403 Forbidden: You are not on the list"),
        (404, {"X-Error-Message": "Invalid rev id: refs/pr/1"}, b"no", "404 Not Found: Invalid rev id: refs/pr/1"),
        (404, {}, b'{"error": {"message": "no such\\nentry"}}', "404 Not Found: no such entry"),
        (410, {}, b"<!DOCTYPE html><html>gone</html>", "the server answers 410 Gone. By hand"),
        (403, {}, b"<?xml?><Error><Code>X</Code><Message>Access is off.</Message></Error>", "Access is off."),
        (400, {}, b"[" * 60_000, "400 Bad Request"),
        (451, {}, b'{"error": null}', "451 Unavailable For Legal Reasons"),
    ],
)  # fmt: skip
def test_the_reason_of_the_hub_is_told_once(status, headers, body, told, server, tmp_path):
    server.answers[HUB_PATH] = [answer(status, body, **{k.replace("-", "_"): v for k, v in headers.items()})]
    found, said = get(tmp_path, HUB)
    assert told in found
    assert len(server.asked) == 1
    hand = found.partition("By hand: ")[2]
    assert "hf://" not in hand
    assert "take it from https://huggingface.co/me/tiny/resolve/refs%2Fpr%2F1/sub/w%201.pt and save it as" in hand
    assert str(target_of(card_named("edm-cifar10-uncond-vp"), tmp_path)) in hand
    assert "hf_secret" not in found + said


def test_the_next_source_after_a_hub_that_breaks(server, tmp_path):
    server.answers[HUB_PATH] = [reset(300_000), *[reset(None)] * 9]
    found, said = get(tmp_path, HUB, f"{server.here}/w.pt")
    assert Path(found).read_bytes() == CONTENT
    assert f"{HUB}: no connection, or a broken one" in said
    assert "the next source is tried" in said
    assert "Traceback" not in said


def test_the_token_stays_with_the_hub(server, tmp_path):
    other = server.here.replace("127.0.0.1", "localhost")
    server.answers[HUB_PATH] = [answer(307, Location=f"{server.here}/moved")]
    server.answers["/moved"] = [answer(302, Location=f"{other}/signed")]
    assert Path(get(tmp_path, HUB)[0]).is_file()
    tokens = {path: headers.get("Authorization") for path, headers in server.asked}
    assert tokens == {HUB_PATH: "Bearer hf_secret", "/moved": "Bearer hf_secret", "/signed": None}
    get(tmp_path / "web", f"{server.here}/w.pt")
    assert server.asked[-1][1].get("Authorization") is None


def test_the_hub_does_not_send_on_to_another_protocol(server, tmp_path, monkeypatch):
    server.answers[HUB_PATH] = [answer(302, Location="ftp://127.0.0.1:9/w.pt")]
    assert "from http to ftp, which is not followed" in get(tmp_path, HUB)[0]
    server.answers[HUB_PATH] = [answer(302, Location="http://[::bad/w.pt")]
    found, said = get(tmp_path, HUB, f"{server.here}/w.pt")
    assert Path(found).is_file()
    assert "an address that is none" in said
    server.answers["/loop"] = [answer(302, Location=f"{server.here}/loop")] * 20
    assert "infinite loop" in get(tmp_path / "loop", f"{server.here}/loop")[0]


def test_the_hub_is_not_asked_where_that_is_switched_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found, said = get(tmp_path, HUB, f"{server.here}/w.pt")
    assert Path(found).is_file()
    assert "HF_HUB_OFFLINE is set" in said
    assert [path for path, _ in server.asked] == ["/w.pt"]


@pytest.mark.parametrize("place", PLACES)
def test_a_transfer_goes_on_after_a_reset(place, server, tmp_path):
    url, path = PLACES[place]
    server.answers[path] = [reset(300_000), lambda handler: rest(int(handler.headers["Range"][6:-1]))(handler)]
    assert Path(get(tmp_path, url if place == "hub" else server.here + url)[0]).read_bytes() == CONTENT
    start = int(server.asked[1][1]["Range"][6:-1])
    assert 200_000 < start <= 300_000
    assert server.asked[1][1]["If-Range"] == '"1"'


@pytest.mark.parametrize(
    "second",
    [whole(), answer(200, CONTENT, ETag='"2"'), rest(5), answer(416, Content_Range="bytes */7"), answer(206, b"x")],
    ids=["no ranges", "another file", "another part", "no such part", "a part without a place"],
)
def test_what_cannot_go_on_begins_anew(second, server, tmp_path):
    server.answers["/w.pt"] = [reset(300_000), second]
    found, _ = get(tmp_path, f"{server.here}/w.pt")
    assert Path(found).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "headers", "told"),
    [
        (b"\n<!DOCTYPE html><html>Sign in to the network</html>", {}, "a web page came in place of the file"),
        (b"\xef\xbb\xbf<html>blocked</html>", {}, "a web page"),
        (b"<!-- proxy --><html></html>", {}, "a web page"),
        (b"Access denied by policy", {"Content_Type": "text/html; charset=utf-8"}, "a web page"),
        (b'{"error": "quota"}', {}, "a text in JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {}, "a Git LFS pointer"),
        (b"\x1f\x8b" + CONTENT, {"Content_Encoding": "gzip"}, "packed as gzip, which was not asked for"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_proxy_says_with_status_200_is_told(page, headers, told, place, server, tmp_path):
    url, path = PLACES[place]
    server.answers[path] = [answer(200, page, **headers)]
    found, said = get(tmp_path, url if place == "hub" else server.here + url, f"{server.here}/good.pt")
    assert Path(found).read_bytes() == CONTENT
    assert told in said


def test_a_page_in_the_middle_does_not_cost_what_has_come(server, tmp_path):
    server.answers["/w.pt"] = [reset(300_000), answer(200, b"<html>sign in</html>")]
    found, _ = get(tmp_path, f"{server.here}/w.pt")
    assert "a web page came" in found
    server.answers["/w.pt"] = [lambda handler: rest(int(handler.headers["Range"][6:-1]))(handler)]
    assert Path(get(tmp_path, f"{server.here}/w.pt")[0]).read_bytes() == CONTENT
    assert server.asked[-1][1]["Range"]


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_another_content_keeps_nothing(known, server, tmp_path):
    found, _ = get(tmp_path, HUB, f"{server.here}/w.pt", **known)
    assert found.count("is not the known file") == 2
    assert [file for file in tmp_path.rglob("*") if file.is_file() and ".pkl" in file.name] == []


def test_a_length_that_is_no_number(server, tmp_path):
    server.answers["/w.pt"] = [answer(200, CONTENT, Content_Length="many")]
    assert Path(get(tmp_path, f"{server.here}/w.pt")[0]).read_bytes() == CONTENT


def test_progress_without_a_terminal_is_lines(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_REPORT", 0.0)
    said = get(tmp_path, f"{server.here}/w.pt")[1]
    name = card_named("edm-cifar10-uncond-vp").file
    assert f"{name}: 1.0 of 1.0 MB" in said
    assert said.count(f"{name}: ") > 3
    assert max(map(len, said.splitlines())) < 400


def test_a_full_disk_is_no_broken_connection(server, tmp_path, full_device):
    card = card_named("edm-cifar10-uncond-vp")
    part = target_of(card, tmp_path).with_name(f"{card.file}.part")
    part.parent.mkdir(parents=True)
    part.with_name(f"{part.name}.json").write_text(json.dumps({"url": f"{server.here}/w.pt", "validator": ""}))
    part.symlink_to(full_device)
    with pytest.raises(OSError, match="No space left on device") as told:
        get(tmp_path, f"{server.here}/w.pt", f"{server.here}/other.pt")
    assert told.value.errno == errno.ENOSPC
    assert told.value.filename == str(part)
    assert len(server.asked) == 1
