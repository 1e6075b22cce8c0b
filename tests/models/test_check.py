"""`models check` against servers on this machine: what each address answers, in words, without fetching a file."""

import http.server
import json
import threading
from contextlib import suppress

import pytest
from huggingface_hub import constants

from fastsample.datasets.published_moments import PublishedReference
from fastsample.models.public import check as checks
from fastsample.models.public.cards import cards
from fastsample.models.public.known import DownloadError

from ..command import command

FILE = b"PK\3\4" + bytes(2_999_996)
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as `server.answers[path]`, (status, headers, body), says; `server.no_head` are paths that refuse HEAD."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        if self.command == "HEAD" and self.path in self.server.no_head:
            status, headers, body = 403, {}, b""
        wanted, total = self.headers.get("Range"), len(body)
        if wanted and body and "no-ranges" not in self.path:
            body = body[: int(wanted.partition("-")[2]) + 1]
            status, headers = 206, {**headers, "Content-Range": f"bytes 0-{len(body) - 1}/{total}"}
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):  # who wanted the first bytes alone has gone
                self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked, server.no_head = {}, [], set()
    server.here = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def server():
    with serve() as server:
        yield server
        server.shutdown()


@pytest.fixture
def asked(server, tmp_path):
    """Runs `models check` for a card with these places on the server; returns how it ended, and what JSON says."""

    def run(*urls, page="", reference="none", size_mb=3):
        file, places = tmp_path / "own.toml", [f"{server.here}{url}" if url.startswith("/") else url for url in urls]
        where = f"urls = {json.dumps(places)}" if urls else f'page = "{page}"'
        file.write_text(
            f'[mine]\nlike = "ddpm-cifar10"\ntitle = "x"\nfile = "z"\nsize_mb = {size_mb}\n'
            f'reference = "{reference}"\n{where}\n'
        )
        ended = command("models", "check", file)
        told = command("models", "check", file, "--json")
        assert told.code == ended.code
        return ended, json.loads(told.out)

    return run


def file(**headers):
    return 200, {"Content-Type": "application/octet-stream", **headers}, FILE


def test_a_file_that_is_there_is_asked_for_its_head_alone(server, asked):
    server.answers["/w.pt"] = file()
    ended, (one,) = asked("/w.pt")
    assert ended.code == 0
    assert (one["reachable"], one["status"], one["size"], one["expected_mb"]) == (True, "reachable", 3_000_000, 3)
    assert (one["kind"], one["id"], one["type"], one["moved"]) == ("model", "mine", "application/octet-stream", "")
    assert {command for command, *_ in server.asked} == {"HEAD"}
    assert " reachable " in ended.out
    assert "without a source" not in ended.out


@pytest.mark.parametrize("path", ["/w.pt", "/no-ranges.pt"])
def test_a_server_that_refuses_head_is_asked_for_the_first_bytes(server, asked, path):
    server.answers[path] = file()
    server.no_head.add(path)
    ended, (one,) = asked(path)
    assert ended.code == 0
    assert (one["status"], one["size"]) == ("reachable", 3_000_000)
    assert [headers.get("Range") for kind, _, headers in server.asked if kind == "GET"] == ["bytes=0-511"] * 2


@pytest.mark.parametrize("headers", [{"Content-Type": "text/html; charset=utf-8"}, {"Content-Length": None}])
def test_a_web_page_is_no_file(server, asked, headers):
    """By its type, or by its first bytes where HEAD told no length."""
    server.answers["/w.pt"] = (200, headers, PAGE)
    ended, (one,) = asked("/w.pt")
    assert ended.code == 1
    assert not one["reachable"]
    assert one["status"] == "a web page came in place of the file; a browser shows what it says"
    assert "models without a source that can be reached: mine" in ended.out


def test_a_dead_first_address_falls_to_the_next(server, asked):
    server.answers["/w.pt"] = file()
    ended, (dead, there) = asked("/gone.pt", "/w.pt")
    assert ended.code == 0
    assert dead["status"] == "the server answers 404 Not Found; the next source is tried"
    assert there["status"] == "reachable"
    ended, (there, dead) = asked("/w.pt", "/gone.pt")
    assert (ended.code, there["status"]) == (0, "reachable")
    assert dead["status"] == "the server answers 404 Not Found"


def test_all_addresses_dead(server, asked):
    ended, found = asked("/gone.pt", "http://127.0.0.1:9/w.pt")
    assert ended.code == 1
    assert found[1]["status"] == "no connection, or a broken one: Connection refused"


def test_another_size_is_told(server, asked):
    server.answers["/w.pt"] = file()
    ended, (one,) = asked("/w.pt", size_mb=300)
    assert ended.code == 0
    assert one["status"] == "reachable, but not of the size on the card"
    assert asked("/w.pt", size_mb=3.4)[1][0]["status"] == "reachable"


def test_a_redirect_names_the_host_and_stays_a_head(server, asked):
    with serve() as other:
        other.answers["/real.pt"] = file()
        server.answers["/w.pt"] = (302, {"Location": f"{other.here}/real.pt"}, b"")
        ended, (one,) = asked("/w.pt")
        other.shutdown()
    assert ended.code == 0
    assert f"http://{one['moved']}" == other.here
    assert {command for command, *_ in other.asked} == {"HEAD"}


def test_the_hub_is_asked_with_its_token(server, asked, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", server.here)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve() as other:
        other.answers["/blob"] = file()
        server.answers["/me/tiny/resolve/main/w.pt"] = (302, {"Location": f"{other.here}/blob"}, b"")
        ended, (one,) = asked("hf://me/tiny/w.pt@main")
        other.shutdown()
    assert ended.code == 0
    assert one["url"] == "hf://me/tiny/w.pt@main"
    assert all(headers["Authorization"] == "Bearer hf_secret" for *_, headers in server.asked)
    assert not any("Authorization" in headers for *_, headers in other.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ended, (one,) = asked("hf://me/tiny/w.pt@main")
    assert (ended.code, one["status"]) == (1, "HF_HUB_OFFLINE is set, so the hub is not asked")


def test_a_page_is_reachable_in_a_browser(server, asked):
    server.answers["/folder"] = (200, {"Content-Type": "text/html"}, PAGE)
    ended, (one,) = asked(page=f"{server.here}/folder")
    assert (ended.code, one["status"], one["size"]) == (0, "reachable in a browser", None)
    assert asked(page=f"{server.here}/gone")[0].code == 1
    assert asked(page="-")[1][0]["status"] == "no address"


def test_references_are_asked_and_decide_nothing(server, asked, monkeypatch):
    entry = PublishedReference("edm-cifar10", "cifar10", "cifar10-train", "x", "npz", url=f"{server.here}/gone.npz")
    monkeypatch.setattr(checks, "published_references", lambda: [entry])
    server.answers["/w.pt"] = file()
    ended, (model, reference) = asked("/w.pt", reference="edm-cifar10")
    assert ended.code == 0
    assert model["reachable"]
    assert (reference["kind"], reference["id"], reference["reachable"]) == ("reference", "edm-cifar10", False)
    assert "references without a source that can be reached: edm-cifar10" in ended.out


def test_all_cards_with_what_they_need_each_address_once(monkeypatch):
    def refuse(address, headers, first=0):
        raise DownloadError("this test asks nobody")

    monkeypatch.setattr(checks, "ask", refuse)
    found = json.loads(command("models", "check", "--json").out)
    models = [one for one in found if one["kind"] == "model"]
    assert {one["id"] for one in models} == {*cards()}
    assert {one["url"] for one in models} == {url for card in cards().values() for url in (card.urls or (card.page,))}
    assert len({(one["kind"], one["id"], one["url"]) for one in found}) == len(found)
    some = json.loads(command("models", "check", "dit-xl2-256", "adm-imagenet64", "--json").out)
    wanted = ["dit-xl2-256", "sd-vae-ft-ema", "adm-imagenet64", "adm-imagenet64-classifier"]
    assert [one["id"] for one in some] == [*wanted, "adm-imagenet256", "adm-imagenet64"]


def test_an_unknown_model_is_a_bad_request():
    ended = command("models", "check", "edm-cifar10-uncond")
    assert ended.code == 2
    assert "did you mean edm-cifar10-uncond-vp" in ended.err
