import base64
import hashlib
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fastsample.results.forms import figures
from fastsample.results.forms.sheet import plain
from fastsample.results.layout import evidence, sheet_of
from fastsample.results.recommend import Candidate, Recommendation
from fastsample.results.report import Picture, Table, page, report_of, summary
from fastsample.results.row import frame_of
from fastsample.results.statistics import Interval
from fastsample.results.store import Store

from ..rows import row_of

SOLVERS = ["SciRE-Solver-V1", "DPM-Solver++(2M)", "UniPC", "DEIS-tAB", "iPNDM", "Flow-Solver", "DDIM", "Heun"]
BUDGETS = [5, 6, 8, 10, 12, 15, 20]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def row(solver, nfe, model, **changes):
    facts = dict(
        model=model, checkpoint_sha256="4359" * 16, solver=solver.lower(), title=solver, options={"order": 3},
        grid="sigmoid", times=[1 - i / (3 * nfe) for i in range(nfe + 1)], nfe_asked=nfe, nfe=nfe, forwards=nfe,
        samples=1000, standard_errors={"psnr": 0.0712},
        metrics={"psnr": 32.0 + nfe - SOLVERS.index(solver), "psnr_median": 31.0, "fd[cifar10-resnet]@1000": 2.5},
        seconds={"network": 20.0, "solver": 0.05, "metrics": 0.03, "total": 20.08},
        protocol={"psnr reference": f"fine ({model})", "extractor[cifar10-resnet]": "bddd" * 16},
        versions={"python": "3.12.1", "fastsample": "0"},
    )  # fmt: skip
    return row_of(f"{solver}{nfe}{model}", **facts | changes)


def candidate(title, nfe, value):
    return Candidate(title.lower(), title, "sigmoid", nfe, nfe, value, value - 0.1, value + 0.1, ("c",))


def verdict(budget, choice, second, lead, tied=(), model="cifar10-tiny-flow", metric="psnr"):
    known = None if lead is None else Interval(lead, lead - 0.1, lead + 0.1)
    others = tuple(candidate(title, budget, 29.0) for title in tied)
    return Recommendation(
        model, metric, f"at most {budget} evaluations", 1000, candidate(choice, budget, 30.0),
        candidate(second, budget, 29.0), known, others, False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report():
    """A report of the size of a real one: 8 solvers, 7 budgets, 2 models."""
    models = ("cifar10-tiny-flow", "cifar10-tiny-vp")
    rows = [row(solver, nfe, model) for model in models for solver in SOLVERS for nfe in BUDGETS]
    found = pd.DataFrame([
        {"model": one.model, "metric": "psnr", "title": one.title, "grid": one.grid, "nfe": one.nfe, "made": one.nfe,
         "value": one.metrics["psnr"] + i % 8, "low": 34.0, "high": 60.0}
        for i, one in enumerate(rows)
    ])  # fmt: skip
    wide = pd.DataFrame({"solver": SOLVERS} | {f"NFE {nfe}": [f"{30 + nfe}.00 ± 0.12"] * 8 for nfe in BUDGETS})
    rng = np.random.default_rng(0)
    places = {
        (solver, f"NFE {nfe}"): figures.Place(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), "30.0 dB")
        for solver in SOLVERS for nfe in BUDGETS
    }  # fmt: skip
    pictures = [
        Picture(
            "Quality", "Bars: 95 % intervals.", "A line chart.", figures.quality(found[found["model"] == models[0]])
        ),
        Picture("Samples", "The same noise.", "A matrix of images.", figures.image_matrix(places), wide=True),
        Picture("Curvature", "Not drawn: the model is not here."),
    ]
    held = frame_of([row for row in rows if row.model == models[0]])
    lines = evidence(held, ["psnr"], interval=lambda *_: None, difference=lambda *_: None)
    tables = [
        Table("PSNR of rows", sheet_of(lines)),
        Table("PSNR", plain(wide, "PSNR [dB]", (("a", "one fewer"), ("", "all of 1,000 samples")))),
        Table("fd", None, "samples is 16 in one row and 32 in another"),
    ]
    verdicts = [verdict(nfe, "UniPC", "DDIM", nfe / 10) for nfe in BUDGETS]
    return page("results-<paper> & more", rows, verdicts, tables, pictures)


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_asks_for_nothing_outside_itself(report):
    page = Elements(report)
    assert page.of("script") == [{}]  # in the page itself
    assert not page.of("link") + page.of("iframe") + page.of("object")
    sources = [one["src"] for one in page.of("img")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    assert all(one["href"].startswith("#") for one in page.of("a"))
    assert "@import" not in report
    assert "url(" not in report
    (policy,) = [one["content"] for one in page.of("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'")
    script = re.search("<script>(.*?)</script>", report, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_notes_of_its_tables_say_how_the_best_is_set_off(tmp_path):
    rng, store = np.random.default_rng(0), Store(tmp_path)
    for place, solver in enumerate(("heun", "euler")):
        values = 20.0 + 5 * place + rng.normal(size=64)
        store.finish(row_of(solver, solver=solver, samples=64, metrics={"psnr": values.mean()}), {"psnr": values})
    told = report_of(store)
    assert "Bold: the best, whose paired" in told
    assert "; underlined: the second, or all" in told


def test_the_page_can_be_read_without_seeing_it(report):
    page = Elements(report)
    assert page.of("html") == [{"lang": "en"}]
    assert [one["alt"] for one in page.of("img")] == ["A line chart.", "A matrix of images."]
    assert all(one.get("scope") for one in page.of("th"))
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    names = {one["id"] for _, one in page.found if "id" in one}
    assert {one["href"][1:] for one in page.of("a")} <= names
    assert sum(name.startswith("row-") for name in names) == 2 * 8 * 7
    assert sum(one["href"].startswith("#row-") for one in page.of("a")) == 8 * 7  # each number of the table of rows


def test_every_row_is_there_with_what_decides_it_and_how_to_repeat_it(report):
    assert "Report on results-&lt;paper&gt; &amp; more" in report
    assert len(Elements(report).of("pre")) == 2 * 8 * 7
    command = (
        "fastsample bench --model cifar10-tiny-vp --solver unipc:order=3 --nfe 8 --grid sigmoid --seed 0 "
        "--samples 1000 --precision float32 --metrics &#39;psnr,fd[cifar10-resnet]&#39; --out results-again"
    )
    assert command in report
    assert report.count("bddd" * 16) == 1  # the same for all, so said once
    assert report.count("fine (cifar10-tiny-vp)") == 1  # and this once for its model
    assert "38.0 (standard error 0.071)" in report
    assert "3.12.1" in report


def test_what_could_not_be_shown_is_named_with_the_reason(report):
    assert "No table: samples is 16 in one row and 32 in another." in report
    assert "Not drawn: the model is not here." in report
    assert "<sup>a</sup> one fewer" in report


def test_the_pictures_are_whole(report):
    chart, matrix = (base64.b64decode(one["src"].partition(",")[2]) for one in Elements(report).of("img"))
    assert b"<svg" in chart
    assert chart.rstrip().endswith(b"</svg>")
    assert matrix.startswith(b"\x89PNG")
    assert matrix.endswith(b"IEND\xaeB`\x82")


def test_each_part_is_told_before_it_is_made(tmp_path):
    store, told = Store(tmp_path), []
    for solver in SOLVERS[:2]:
        one = row(solver, 8, "vp", samples=8, options={})
        store.finish(one.model_copy(update={"cell": solver[:4], "metrics": {"psnr": 3.5}}), {"psnr": np.arange(8.0)})
    report_of(store, tell=told.append)
    assert told == ["table of PSNR", "PSNR against evaluations on vp", "PSNR against time on vp", "the page"]


def test_the_summary_joins_budgets_with_the_same_leader():
    verdicts = [
        verdict(5, "A", "B", 1.0), verdict(6, "B", "A", 0.5), verdict(8, "A", "B", 3.0), verdict(10, "A", "B", 2.0),
        verdict(12, "A", "B", 0.0, tied=["B", "C"]), verdict(15, "C", "A", 0.0, tied=["A", "B"]),
        verdict(5, "A", "B", None, metric="fd[n]@9"),
    ]  # fmt: skip
    assert summary(verdicts) == [
        ("cifar10-tiny-flow, by PSNR", [
            "5, 8 and 10 evaluations: A (sigmoid), by 1.00 to 3.00 dB over the second; "
            "each 95 % interval excludes zero.",
            "6 evaluations: B (sigmoid), by 0.50 dB over the second; the 95 % interval excludes zero.",
            "12 and 15 evaluations: A (sigmoid), B (sigmoid) and C (sigmoid) are level.",
        ]),
        ("cifar10-tiny-flow, by fd[n]@9", ["5 evaluations: A (sigmoid)."]),
    ]  # fmt: skip


class Browser:
    """Headless Chromium, by the DevTools protocol over its pipe: it reads commands on descriptor 3, answers on 4."""

    def __init__(self, profile):
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()

        def connect():
            for end, number in ((commands, 30), (answers, 31), (30, 3), (31, 4)):
                os.dup2(end, number)

        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [CHROMIUM, *words, f"--user-data-dir={profile}", "about:blank"], preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers):
            os.close(end)
        self._rest, self._numbers, self.events, self._session = b"", itertools.count(1), [], {}
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _read(self):
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], 600)[0]:
                raise TimeoutError("Chromium says nothing for ten minutes")
            if not (more := os.read(self._answers, 1 << 20)):
                raise EOFError("Chromium is gone")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, file, width, colours):
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])
        self.call("Page.navigate", url=file.as_uri())
        while not self.of("Page.loadEventFired"):
            self.events.append(self._read())

    def of(self, method):
        return [event["params"] for event in self.events if event["method"] == method]

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here to open the report in (apt-get install chromium)")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_shows_it_on_phones_and_screens_without_network_or_scrolling_sideways(
    report, browser, tmp_path, width, colours
):
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    browser.open(file, width, colours)
    assert browser.value("innerWidth") == width
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    # The page fits; what is wider scrolls in a box of its own.
    assert browser.value("document.documentElement.scrollWidth") <= browser.value(
        "document.documentElement.clientWidth"
    )
    boxes = browser.value("[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth)")
    assert len(boxes) == 3
    assert (max(boxes) > 0) is (width == 390)
    outside = """[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll') &&
        one.getBoundingClientRect().right > innerWidth + 1).length"""
    assert browser.value(outside) == 0
    assert browser.value("[...document.images].map(one => one.complete && one.naturalWidth > 0)") == [True, True]
    asked = [one["request"]["url"] for one in browser.of("Network.requestWillBeSent")]
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert browser.of("Log.entryAdded") == []  # such as something that the page's own policy refused
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if colours == "light" else "rgb(20, 23, 27)")


def click(browser, element):
    """A press of the mouse in the middle of an element, given as an expression."""
    browser.value(f"{element}.scrollIntoView({{block: 'center', inline: 'center'}})")
    box = browser.value(f"JSON.parse(JSON.stringify({element}.getBoundingClientRect()))")
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, **where)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_reader_sorts_and_filters_tables_and_opens_the_row_of_a_number(report, browser, tmp_path, width, colours):
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    browser.open(file, width, colours)
    table = "document.querySelector('#tables table')"
    column = f"[...{table}.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.cells[%d].innerText)"

    def solvers():
        return [text.partition(" (order")[0] for text in browser.value(column % 0)]

    assert solvers() == SOLVERS
    for expected in (sorted, lambda values: sorted(values, reverse=True)):
        click(browser, f"{table}.querySelectorAll('thead th')[0].firstChild")
        assert [name.lower() for name in solvers()] == expected([name.lower() for name in SOLVERS])
    for rising in (False, True):  # the best first: of PSNR the highest
        click(browser, f"{table}.querySelectorAll('thead th')[3].firstChild")
        values = [float(text) for text in browser.value(column % 3)]
        assert values == sorted(values, reverse=not rising)
        told = browser.value(f"{table}.querySelectorAll('thead th')[3].ariaSort")
        assert told == ("ascending" if rising else "descending")

    click(browser, "document.querySelector('#tables .filter input')")
    browser.call("Input.insertText", text="dpm 2m")
    assert solvers() == ["DPM-Solver++(2M)"]
    assert browser.value("document.querySelector('#tables .filter output').innerText").strip() == "1 of 8"

    click(browser, f"[...{table}.querySelectorAll('tbody tr')].find(row => !row.hidden).cells[3].querySelector('a')")
    row = "document.querySelector('details.row[open]')"
    end = time.monotonic() + 20
    while browser.value(f"{row}.id") is None and time.monotonic() < end:  # a browser tells of a new address afterwards
        time.sleep(0.05)
    assert browser.value(f"{row}.id") == "row-DPM-Solver++(2M)8cifar10-tiny-flow"
    box = browser.value(f"JSON.parse(JSON.stringify({row}.getBoundingClientRect()))")
    assert -1 < box["top"] < 844  # it is seen
    text = browser.value(f"{row}.innerText")
    assert "fastsample bench --model cifar10-tiny-flow --solver 'dpm-solver++(2m):order=3' --nfe 8" in text
    assert "4359" * 16 in text  # of the checkpoint, which all rows share
    assert "fine (cifar10-tiny-flow)" in text  # of the protocol, which those of a model share
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    asked = [one["request"]["url"] for one in browser.of("Network.requestWillBeSent")]
    assert {url.partition("#")[0] for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert browser.of("Log.entryAdded") == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_images_have_the_paper_of_their_page(report, browser, tmp_path, colours):
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    browser.open(file, 1280, colours)
    corner = """(() => { const image = document.querySelector('.wide img'), page = document.createElement('canvas');
        page.width = page.height = 1; const pen = page.getContext('2d'); pen.drawImage(image, 0, 0);
        return [...pen.getImageData(0, 0, 1, 1).data]; })()"""
    assert browser.value(corner) == ([255, 255, 255, 255] if colours == "light" else [20, 23, 27, 255])
