import numpy as np
import pandas as pd
import pytest

from fastsample.results.recommend import recommend, with_seconds
from fastsample.results.statistics import Interval, mean_interval, paired_interval

NOISE = np.random.default_rng(0).normal(size=400)


class Samples:
    """Evidence about made-up samplers, from per-sample values that share their noise."""

    def __init__(self, metric="psnr"):
        self.metric, self.lines, self.values = metric, [], {}

    def add(self, solver, nfe, mean, *, made=None, own=0.1, seconds=None, model="m", grid="g", known=True):
        cell = f"{solver}-{grid}-{nfe}"
        values = mean + NOISE + own * np.random.default_rng(len(self.lines) + 1).normal(size=len(NOISE))
        values += mean - values.mean()  # so that the mean is exact
        self.values[cell] = values if known else None
        interval = mean_interval(values)
        self.lines.append({
            "model": model, "solver": solver, "title": solver.upper(), "grid": grid, "nfe": nfe, "made": made or nfe,
            "metric": self.metric, "samples": len(values), "value": mean, "cells": (cell,), "seconds": seconds,
            "low": interval.low if known else np.nan, "high": interval.high if known else np.nan,
            "stated": False, "trained_on": "nothing",
        })  # fmt: skip
        return self

    def difference(self, first, second, metric):
        assert metric == self.metric
        one, two = self.values[first[0]], self.values[second[0]]
        return None if one is None or two is None else paired_interval(one, two)

    def recommend(self, **condition):
        return recommend(pd.DataFrame(self.lines), self.difference, **condition)


def test_the_best_within_the_budget_wins_by_its_paired_lead():
    found = Samples().add("a", 5, 30.0).add("b", 5, 31.0).add("a", 10, 35.0).add("b", 20, 50.0).recommend(budget=10)
    assert (found.choice.solver, found.choice.nfe) == ("a", 10)
    assert (found.second.solver, found.second.nfe) == ("b", 5)  # its best within the budget
    assert found.lead.value == pytest.approx(4.0)
    # Pairing takes the shared noise out: the lead is known better than either number.
    assert found.lead.high - found.lead.low < 0.5 * (found.choice.high - found.choice.low)
    assert found.tied == ()
    assert "Better by 4.00 dB than the second, B on grid g, NFE 5 (95 % sure: 3.9" in str(found)


def test_what_cannot_be_told_from_the_best_is_level_with_it():
    samples = Samples().add("a", 10, 35.0, own=1.0).add("b", 10, 34.99, own=1.0).add("c", 10, 34.0, own=1.0)
    found = samples.recommend(budget=10)
    assert found.choice.solver == "a"
    assert [one.solver for one in found.tied] == ["b"]
    assert found.verdict.startswith("Level with it (95 %, 400 samples): B on grid g, NFE 10.")


def test_a_third_may_be_level_where_the_second_is_not():
    samples = Samples().add("a", 10, 35.0, own=0.01).add("b", 10, 34.9, own=0.01).add("c", 10, 34.8, own=5.0)
    found = samples.recommend(budget=10)
    assert found.second.solver == "b"
    assert found.lead.excludes_zero
    assert [one.solver for one in found.tied] == ["c"]
    assert "Level" in found.verdict


def test_the_same_solver_on_another_grid_is_another_sampler():
    found = Samples().add("a", 10, 35.0).add("a", 10, 33.0, grid="h").recommend(budget=10)
    assert (found.choice.grid, found.second.grid) == ("g", "h")


def test_lower_is_better_for_distances():
    found = Samples("fd[net]@400").add("a", 10, 3.0).add("b", 10, 2.0).recommend(budget=10)
    assert found.choice.solver == "b"
    assert found.lead.value == pytest.approx(1.0)  # positive: it leads
    assert 0 < found.lead.low < 1 < found.lead.high
    reached = Samples("fd[net]@400").add("a", 5, 3.0).add("a", 10, 2.0).recommend(target=2.5)
    assert reached.choice.nfe == 10
    assert reached.condition == "fd[net]@400 of at most 2.5 in the whole of its 95 % interval"


def test_a_target_takes_the_fewest_evaluations_that_surely_reach_it():
    samples = Samples().add("a", 5, 29.0).add("a", 8, 30.05).add("a", 10, 32.0).add("b", 12, 40.0)
    found = samples.recommend(target=30.0)
    assert samples.lines[1]["low"] < 30 < samples.lines[1]["value"]  # NFE 8 reaches it, but may have been lucky
    assert (found.choice.solver, found.choice.nfe) == ("a", 10)
    assert found.verdict == "The next, B on grid g, NFE 12, needs 2 more."
    assert found.tied == ()


def test_among_equally_cheap_samplers_that_reach_a_target_the_metric_decides():
    samples = Samples().add("a", 8, 32.0).add("b", 8, 33.0).add("c", 9, 33.0).add("d", 8, 32.999)
    found = samples.recommend(target=30.0)
    assert found.choice.solver == "b"
    assert [one.solver for one in found.tied] == ["d"]  # c needs one more


def test_time_is_a_condition_and_may_be_joined_with_others():
    samples = Samples().add("a", 10, 35.0, seconds=0.3).add("b", 10, 34.0, seconds=0.1).add("b", 5, 30.0, seconds=0.05)
    assert samples.recommend(max_seconds=0.2).choice.nfe == 10
    found = samples.recommend(max_seconds=0.2, budget=5)
    assert (found.choice.solver, found.choice.nfe) == ("b", 5)
    assert found.condition == "at most 5 evaluations, at most 0.2 s per image"
    assert found.second is None
    assert found.verdict == "No other sampler of the store meets the condition."


def test_an_adaptive_solver_counts_by_the_evaluations_that_it_makes():
    samples = Samples().add("dopri5", 10, 60.0, made=98).add("a", 10, 35.0)
    assert samples.recommend(budget=10).choice.solver == "a"
    assert samples.recommend(budget=100).choice.solver == "dopri5"


def test_without_per_sample_data_the_verdict_says_so():
    found = Samples().add("a", 10, 35.0, known=False).add("b", 10, 34.0, known=False).recommend(budget=10)
    assert found.lead is None
    assert found.choice.low is None
    assert "1.00 dB behind; without per-sample data" in found.verdict
    equal = Samples().add("a", 10, 35.0, known=False).add("b", 10, 35.0, known=False).recommend(budget=10)
    assert len(equal.tied) == 1


def test_what_no_row_meets_is_refused_with_what_there_is():
    samples = Samples().add("a", 5, 30.0, seconds=0.1).add("a", 10, 35.0, seconds=0.2)
    with pytest.raises(ValueError, match=r"no row of m has at most 3 evaluations; there are NFE 5 to 10, psnr to 35"):
        samples.recommend(budget=3)
    with pytest.raises(ValueError, match=r"PSNR of at least 40 dB in the whole of its 95 % interval; .*psnr to 35"):
        samples.recommend(target=40)
    with pytest.raises(ValueError, match=r"at most 0.01 s per image; .*0.1 s per image and more"):
        samples.recommend(max_seconds=0.01)
    with pytest.raises(ValueError, match="give a condition"):
        samples.recommend()


def test_seconds_are_those_of_network_and_solver_of_one_image_on_one_device():
    found = pd.DataFrame({"cells": [("a", "b"), ("c",)]})
    rows = pd.DataFrame({
        "cell": ["a", "b", "c", "other"], "device": ["x", "x", "x", "y"], "samples": [10, 10, 100, 1],
        "seconds.network": [1.0, 3.0, 4.0, 1.0], "seconds.solver": [1.0, 1.0, 1.0, 1.0],
    })  # fmt: skip
    assert with_seconds(found, rows)["seconds"].tolist() == pytest.approx([0.3, 0.05])
    rows["device"] = ["x", "y", "x", "y"]
    with pytest.raises(ValueError, match="different devices cannot be compared: x and y"):
        with_seconds(found, rows)


def test_a_difference_of_unknown_sign_is_a_tie():
    def difference(first, second, metric):
        return Interval(0.1, -0.1, 0.3)

    found = recommend(pd.DataFrame(Samples().add("a", 5, 30.1).add("b", 5, 30.0).lines), difference, budget=5)
    assert [one.solver for one in found.tied] == ["b"]


def test_beside_a_trained_choice_stands_the_best_without_training():
    samples = Samples().add("bns", 8, 40.0).add("rk2-bespoke", 8, 38.0).add("a", 8, 35.0).add("b", 8, 34.0)
    for line in samples.lines[:2]:
        line["trained_on"] = "squared error"
    found = samples.recommend(budget=8)
    assert (found.choice.solver, found.second.solver, found.free.solver) == ("bns", "rk2-bespoke", "a")
    assert found.gain.value == pytest.approx(5.0)
    assert "Without training the best is A on grid g, NFE 8, psnr 35.00 [" in str(found).replace("PSNR", "psnr")
    assert "BNS gains 5.00 dB on it (" in str(found)
    del samples.lines[1]
    found = samples.recommend(budget=8)
    assert "than the second, A on grid g, NFE 8" in str(found)
    assert "The second is the best without training: PSNR 35.00 [" in str(found)
    del samples.lines[0]
    assert samples.recommend(budget=8).free is None
