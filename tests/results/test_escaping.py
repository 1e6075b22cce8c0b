"""One place of escaping for each format."""

import csv
import io
import re
import string
import unicodedata
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.markup import escape

from fastsample.bench.cli.words import Screen
from fastsample.results.forms.escaping import csv_text, latex, markdown, visible
from fastsample.results.forms.figures import picture_bytes, quality
from fastsample.results.forms.sheet import plain, to_rich, write

CODES = (
    *range(32), *range(127, 160), 0xAD, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F),
    *range(0x2066, 0x206A), 0xFEFF, 0xD800, 0xE0041,
)  # fmt: skip
STEERING = list(map(chr, CODES))


@pytest.mark.parametrize("sign", STEERING, ids=[f"{ord(sign):x}" for sign in STEERING])
def test_what_steers_is_shown(sign):
    shown = visible(f"a{sign}b")
    assert re.fullmatch(r"a\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})b", shown)
    assert eval(f"'{shown}'") == f"a{sign}b"


def test_what_is_read_stays():
    text = "Fréchet ± 1 ↑ 中文 λ\u0301 \\x1b [b] é\xa0x"
    assert visible(text) == text
    assert visible(visible("\x1b[31m")) == visible("\x1b[31m") == r"\x1b[31m"


@pytest.mark.parametrize("tty", [True, False])
def test_a_screen_obeys_no_text(tty):
    file = io.StringIO()
    screen = Screen(file=file, width=60, force_terminal=tty, color_system="standard" if tty else None)
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ex"
    screen.print(f"[bold]one[/] {escape(evil)}\nnext line")
    screen.print(to_rich(plain(pd.DataFrame({evil: [evil]}), evil, (("a", evil),))))
    screen.print(evil, markup=False, soft_wrap=True)
    with screen.status(evil):
        pass
    shown = re.sub(r"\x1b\[(\d*(;\d+)*m|\?25[lh]|2K|1A|\d*[AG])", "", file.getvalue())  # rich's own
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert r"\x1b]0;title\x07\x1b[2J\x9b31m\u202ex" in shown
    assert "next line" in shown.splitlines()[1]
    assert ("\x1b[1m" in file.getvalue()) == tty


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a](http://x.y)", r"\[a\](http\://x.y)"), ("![a](b)", r"!\[a\](b)"), ("<img src=x>", r"\<img src=x\>"),
        ("`x` | y", r"\`x\` \| y"), ("www.x.y and https://x.y", r"www\.x.y and https\://x.y"),
        ("me@x.y", r"me\@x.y"), ("&lt;b&gt;", r"\&lt;b\&gt;"), ("a\\", r"a\\"), ("# a\n\n# b", r"\# a\\x0a\\x0a\# b"),
        ("$x$ ~~y~~ _z_ *w*", r"\$x\$ \~\~y\~\~ \_z\_ \*w\*"),
    ],
)  # fmt: skip
def test_markdown(text, told):
    assert markdown(text) == told


def test_csv_has_no_formula_and_the_same_numbers():
    texts = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "-inf", "-1.5; 2"]
    kept = ["-1.5", "+2", "-3e-4", "-", "a=b", "é"]
    frame = pd.DataFrame({
        "=name": texts + kept, "number": [-1.5] * 16,
        "count": pd.array([-3, None] * 8, dtype="Int64"),
    })  # fmt: skip
    read = list(csv.DictReader(io.StringIO(csv_text(frame))))
    column = [line["'=name"] for line in read]
    assert all(cell.startswith("'") for cell in column[: len(texts)])
    assert column[0] == "'=1+1"
    assert column[4] == r"'\x09=1"
    assert column[len(texts) :] == kept
    assert {line["number"] for line in read} == {"-1.5"}
    assert [line["count"] for line in read] == ["-3", ""] * 8
    assert write(plain(frame), "csv") == csv_text(frame)


def test_latex_is_ascii_and_closed():
    codes = (*range(160, 0x600), *range(0x2000, 0x2300), 0x4E2D, 0x1F600)
    every = string.printable + "".join(map(chr, codes))
    for sign in every:
        told = latex(f"a{sign}b")
        assert told.isascii(), sign
        assert told.isprintable(), sign
        assert told.count("{") - told.count(r"\{") == told.count("}") - told.count(r"\}"), sign
        assert (told.count("$") - told.count(r"\$")) % 2 == 0, sign
    assert latex("Fréchet Ångström naïve ł ß") == r"Fr\'{e}chet \r{A}ngstr\"{o}m na\"{i}ve \l{} \ss{}"
    assert latex("中\x1b") == r"\textbackslash{}u4e2d\textbackslash{}x1b"
    assert latex("λ ≤ 3 µ ↑ a|b") == r"$\lambda$ $\le$ 3 $\mu$ $\uparrow$ a\textbar{}b"
    assert latex(r"50% of a_b & {c} #1 $x$") == r"50\% of a\_b \& \{c\} \#1 \$x\$"
    assert latex("~^\\<>") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
    assert (latex("-"), latex("-3.1"), latex("a-b")) == ("--", "$-$3.1", "a-b")
    # Only commands of LaTeX's own OT1: these of the map need T1 or a package.
    commands = set(re.findall(r"\\([a-z]+)", " ".join(map(latex, every))))
    assert not commands & {"textquotedbl", "guillemotleft", "dh", "th", "euro", "k"}
    assert unicodedata.is_normalized("NFC", latex("é"))


def test_html_and_pictures_obey_no_text():
    evil = "\x1b[31m$x^$ & <b>\u202e"
    page = write(plain(pd.DataFrame({"a": [evil]}), evil), "html")
    ElementTree.fromstring(page)  # a control character is not well-formed
    assert r"\x1b[31m$x^$ &amp; &lt;b&gt;\u202e" in page
    found = pd.DataFrame([
        {"model": evil, "metric": "psnr", "title": evil, "grid": evil, "nfe": nfe, "made": nfe, "value": 30.0 + nfe,
         "low": 29.0 + nfe, "high": 31.0 + nfe} for nfe in (5, 10)
    ])  # fmt: skip
    drawn = picture_bytes(quality(found), "svg").decode()
    ElementTree.fromstring(drawn)
    assert r"\x1b[31m$x^$ &amp; &lt;b&gt;\u202e" in drawn
