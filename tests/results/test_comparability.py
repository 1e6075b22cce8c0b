"""Numbers that differ in more than what is compared never share a column, and the reason names the field."""

import pytest

from fastsample.results.comparable import incomparable
from fastsample.results.row import frame_of

from ..rows import row_of

FD = "fd[net]@100"
SHA = {letter: letter * 64 for letter in "abef"}
SEED_0, SEED_1 = "(0123456789abcdef)", "(fedcba9876543210)"  # the hash of a reference solution holds its seed


def row(cell, **changes):
    protocol = {
        "noise": "philox", "psnr": "clamped", "psnr reference": f"fine NFE 100 {SEED_0}", "uint8": "floor",
        "extractor[net]": SHA["e"], "reference[net]": "data n=50000",
    }  # fmt: skip
    changes["protocol"] = protocol | changes.get("protocol", {})
    facts = dict(samples=100, metrics={"psnr": 30.0, FD: 4.0}, grid="uniform", versions={"fastsample": "1"})
    return row_of(cell, **facts | changes)


def reason(metric, *rows):
    return incomparable(frame_of(rows), metric)


def test_solvers_budgets_and_models_are_what_is_compared():
    rows = [
        row("a"), row("b", solver="euler"), row("c", nfe_asked=20, nfe=20), row("d", device="cuda"),
        row("e", model="n", checkpoint_sha256=SHA["b"], protocol={"psnr reference": f"other {SEED_0}"}),
    ]  # fmt: skip
    assert reason("psnr", *rows) == reason(FD, *rows) == reason("kid[net]@100", *rows) == ""


@pytest.mark.parametrize(
    ("changes", "metrics", "told"),
    [
        ({"samples": 200, "metrics": {"psnr": 9.0, "fd[net]@200": 4.0}}, ["psnr"], "samples is '100' in one row and"),
        ({"precision": "bf16"}, ["psnr", FD], "precision is 'float32' in one row and 'bf16'"),
        ({"guidance": 2.0}, ["psnr", FD], "guidance is '0.0' in one row and '2.0'"),
        ({"checkpoint_sha256": SHA["b"]}, ["psnr", FD], "checkpoint_sha256 is aaaaaaaaaaaa... in one row and bbb"),
        ({"protocol": {"psnr reference": f"coarse {SEED_0}"}}, ["psnr"], "psnr reference is 'fine NFE 100'"),
        ({"protocol": {"extractor[net]": SHA["f"]}}, [FD], "extractor[net] is eeeeeeeeeeee... in one row and fff"),
        ({"protocol": {"reference[net]": "data n=10000"}}, [FD], "reference[net] is 'data n=50000' in one row"),
        ({"protocol": {"uint8": "round"}}, [FD], "uint8 is 'floor' in one row and 'round'"),
        ({"seed": 1}, ["psnr", FD], "m euler uniform NFE 10 has seed 1 and m heun uniform NFE 10 seed 0"),
        ({"protocol": {"classifier guidance": "scale 1"}}, ["psnr", FD], "classifier guidance is not given in one row"),
        ({"protocol": {"labels": "balanced"}}, ["psnr", FD], "labels is not given in one row and 'balanced'"),
    ],
)  # fmt: skip
def test_what_decides_a_number_is_named(changes, metrics, told):
    rows = row("a"), row("b", solver="euler", **changes)
    for metric in ("psnr", FD):
        found = reason(metric, *rows)
        assert told in found if metric in metrics else found == ""


def test_counts_and_extractors_in_the_name_keep_to_their_own_columns():
    rows = row("a"), row("b", samples=200, metrics={"fd[net]@200": 4.0}), row("c", metrics={"fd[other]@100": 4.0})
    assert [reason(name, *rows) for name in (FD, "fd[net]@200", "fd[other]@100", "psnr")] == [""] * 4


def test_seeds_repeat_a_cell_where_all_have_them():
    first = [row("a"), row("b", seed=1, protocol={"psnr reference": f"fine NFE 100 {SEED_1}"})]
    second = [row("c", solver="euler"), row("d", solver="euler", seed=1)]
    assert reason("psnr", *first, *second) == ""
    told = "psnr: m euler uniform NFE 10 has seed 0 and m heun uniform NFE 10 seed 0, 1"
    assert reason("psnr", *first, second[0]) == told


def test_a_cell_of_two_versions_is_not_averaged():
    rows = row("a"), row("b", versions={"fastsample": "2"})
    assert reason("psnr", *rows) == "psnr: m heun uniform NFE 10 was computed by fastsample 1 and 2"
    assert reason("psnr", row("a"), row("b", solver="euler", versions={"fastsample": "2"})) == ""
