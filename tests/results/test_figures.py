import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastsample.results.forms import figures, looks


def evidence(solvers=3, models=("m",), metric="psnr", budgets=(5, 8, 10)):
    lines = [
        {
            "model": model, "metric": metric, "title": f"S{i}", "grid": "g", "nfe": nfe, "made": nfe,
            "value": 20.0 + nfe + i, "low": 19.5 + nfe + i, "high": 21.0 + nfe + i, "seconds": nfe * (1 + 0.1 * i),
        }
        for model in models for i in range(solvers) for nfe in budgets
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_the_pareto_front_is_what_nothing_else_beats():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost, value = rng.integers(0, 8, 30).astype(float), rng.integers(0, 8, 30).astype(float)
        for higher in (True, False):
            gain = value if higher else -value
            best = {
                (c, g) for c, g in zip(cost, gain, strict=True)
                if not any((a <= c and b >= g) and (a, b) != (c, g) for a, b in zip(cost, gain, strict=True))
            }  # fmt: skip
            found = figures.front(cost, value, higher)
            assert {(cost[i], gain[i]) for i in found} == best
            assert len(found) == len(best)  # of equal points one


def test_quality_has_a_line_with_bars_for_each_solver_and_rings_on_the_front():
    figure = figures.quality(evidence(models=("m", "n")))
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("m", "n")
    assert first.get_xscale() == "log"
    assert first.get_yscale() == "linear"  # decibels
    assert "higher is better" in first.get_ylabel()
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["5", "8", "10"]
    lines = first.containers
    assert [line.get_label() for line in lines] == ["S0", "S1", "S2"]
    assert lines[0].lines[0].get_xydata().tolist() == [[5, 25], [8, 28], [10, 30]]
    (bars,) = lines[0].lines[2]
    assert bars.get_segments()[0].tolist() == [[5, 24.5], [5, 26]]
    rings = first.collections[-1].get_offsets().tolist()
    assert rings == [[5, 27], [8, 30], [10, 32]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["S0", "S1", "S2", "Pareto front"]


def test_ticks_stand_at_budgets_that_were_asked_and_at_the_costliest_run():
    found = evidence()
    found.loc[found["nfe"] == 10, "made"] = [9, 10, 98]
    (axis,) = figures.quality(found).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["5", "8", "10", "98"]
    assert axis.containers[2].lines[0].get_xdata().tolist() == [5, 8, 98]  # points at what was made


def test_distances_have_log_axes_and_the_other_direction():
    (axis,) = figures.quality(evidence(metric="fd[net]@9"), against="seconds").axes
    assert axis.get_yscale() == "log"
    assert axis.get_xlabel() == "seconds per image"
    assert "lower is better" in axis.get_ylabel()
    assert axis.collections[-1].get_offsets()[0].tolist() == [5, 25]  # cheapest and lowest
    with pytest.raises(ValueError, match="not 'money'"):
        figures.quality(evidence(), against="money")


def test_values_below_zero_stay_on_a_linear_axis():
    found = evidence(metric="kid[net]@9")
    found[["value", "low", "high"]] -= 27
    assert figures.quality(found).axes[0].get_yscale() == "linear"


def test_no_two_lines_look_alike_without_colour():
    (axis,) = figures.quality(evidence(solvers=30)).axes
    lines = [container.lines[0] for container in axis.containers]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 30


def test_a_solver_looks_the_same_in_every_panel():
    found = evidence(models=("m", "n"))
    first, second = figures.quality(found[(found["model"] == "m") | (found["title"] != "S0")]).axes
    looks = [{c.get_label(): c.lines[0].get_marker() for c in axis.containers} for axis in (first, second)]
    assert set(looks[1]) == {"S1", "S2"}
    assert all(looks[0][name] == marker for name, marker in looks[1].items())


def test_grids_are_named_where_a_solver_has_several():
    found = pd.concat([evidence(solvers=2), evidence(solvers=1).assign(grid="h")])
    assert list(dict.fromkeys(figures.series_names(found))) == ["S0, g", "S1", "S0, h"]


def test_a_matrix_shows_each_image_in_its_place():
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8) for name in "abc"}
    figure = figures.image_matrix({
        ("r1", "c1"): figures.Place(images["a"], "30.0 dB"), ("r1", "c2"): figures.Place(images["b"]),
        ("r2", "c1"): None, ("r2", "c2"): figures.Place(images["c"]),
    }, "title")  # fmt: skip
    axes = np.array(figure.axes).reshape(2, 2)
    assert [axis.get_title() for axis in axes[0]] == ["c1", "c2"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["r1", "r2"]
    assert axes[0, 0].get_xlabel() == "30.0 dB"
    assert not axes[1, 0].images
    block = axes[0, 0].images[0].get_array()
    assert block.shape == (8, 10, 3)  # 2 x 2, the last place white
    np.testing.assert_array_equal(block[:4, 5:], images["a"][1])
    np.testing.assert_array_equal(block[4:, :5], images["a"][2])
    assert (block[4:, 5:] == 255).all()


def test_errors_have_a_panel_for_each_model_and_budget_and_leave_out_the_start():
    points = pd.DataFrame({
        "model": "m", "nfe": [5] * 6 + [8] * 3, "title": ["A"] * 3 + ["B"] * 3 + ["A"] * 3, "grid": "g",
        "time": [0, 0.5, 1] * 3, "error": [0, 0.1, 0.2, 1e-9, 0.2, 0.3, 0, 0.01, 0.02],
    })  # fmt: skip
    first, second = figures.errors(points).axes
    assert (first.get_title(), second.get_title()) == ("m, NFE 5", "m, NFE 8")
    assert first.get_yscale() == "log"
    assert [line.get_xydata().tolist() for line in first.lines] == [[[0.5, 0.1], [1, 0.2]], [[0.5, 0.2], [1, 0.3]]]
    assert len(second.lines) == 1


def test_curvature_names_the_area_with_its_interval():
    profile = pd.DataFrame({
        "model": "m", "time": [0.25, 0.75], "value": [1.0, 3.0], "low": [0.9, 2.8], "high": [1.1, 3.2],
        "total": 2.0, "low_total": 1.9, "high_total": 2.2,
    })  # fmt: skip
    figure = figures.curvature(profile)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1, 3]
    assert figure.legends[0].get_texts()[0].get_text() == "m: curvature 2 ± 0.2"


def test_pictures_are_png_or_svg_by_name_and_the_same_each_time(tmp_path):
    for name in ("a.png", "b.PNG", "c.svg"):
        figures.save(figures.quality(evidence()), tmp_path / name)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width > 800  # 4.4 inches at 200 dots
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.PNG").read_bytes()
    assert ElementTree.fromstring((tmp_path / "c.svg").read_text()).tag.endswith("svg")
    assert figures.picture_bytes(figures.quality(evidence()), "svg") == (tmp_path / "c.svg").read_bytes()
    with Image.open(io.BytesIO(figures.picture_bytes(figures.quality(evidence(solvers=1)), "png"))) as one:
        assert one.convert("L").getextrema()[0] < 128  # something is drawn


def test_other_endings_and_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg, not 'a.pdf'"):
        figures.save(figures.quality(evidence()), tmp_path / "a.pdf")
    with pytest.raises(ValueError, match="cannot write"):
        figures.save(figures.quality(evidence()), tmp_path / "missing" / "two" / "a.png")


def test_no_colour_is_used_twice():
    for count in (1, 7, 14, 15, 60):
        found = looks.looks_of(f"S{i}" for i in range(count))
        assert len({look["color"] for look in found.values()}) == count
        unlike = {(look["marker"], look["linestyle"]) for look in found.values()}
        assert len(unlike) == min(count, 36)


def test_rings_stand_where_a_point_is_worth_its_cost():
    found = evidence(solvers=1, budgets=(5, 8, 10, 12))
    found["value"], found["low"], found["high"] = [20.0, 25.0, 25.2, 30.0], [19, 24.5, 24.7, 29], [21, 25.5, 25.7, 31]
    (axis,) = figures.quality(found).axes
    assert axis.collections[-1].get_offsets().tolist() == [[5, 20], [8, 25], [12, 30]]  # 25.2 +- 0.5 is no gain


def test_seconds_are_joined_and_ringed_where_more_evaluations_took_longer():
    found = evidence(solvers=2)
    found.loc[found["title"] == "S1", "seconds"] = [9.0, 7.0, 11.0]  # the last two are on the front
    (axis,) = figures.quality(found, against="seconds").axes
    first, second = (container.lines[0] for container in axis.containers)
    assert first.get_linestyle() != "None"
    assert second.get_linestyle() == "None"
    assert first.get_xydata().tolist() == [[5, 25], [8, 28], [10, 30]]
    assert axis.collections[-1].get_offsets().tolist() == [[5, 25], [10, 30]]


@pytest.mark.parametrize(("columns", "width"), [(3, 1100), (9, 9 * 240)])
def test_a_matrix_is_of_a_size_that_can_be_seen(columns, width):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    places = {(row, str(column)): figures.Place(images) for row in "ab" for column in range(columns)}
    with Image.open(io.BytesIO(figures.picture_bytes(figures.image_matrix(places, "m"), "png"))) as picture:
        assert picture.width >= width


def test_a_dark_matrix_leaves_the_light_one_as_it_was():
    figure = figures.image_matrix({("a", "b"): figures.Place(np.full((1, 8, 8, 3), 128, np.uint8), "30 dB")}, "m")
    light = figures.picture_bytes(figure, "png")
    with looks.darkened(figure, "#14171b", "#e6e9ed"):
        dark = figures.picture_bytes(figure, "png")
    assert figures.picture_bytes(figure, "png") == light
    with Image.open(io.BytesIO(dark)) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (0x14, 0x17, 0x1B)
        assert (0xE6, 0xE9, 0xED) in {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


def test_no_ring_is_on_who_is_alone_at_fewer_evaluations_than_asked():
    found = evidence(solvers=2, budgets=(5, 10))
    found.loc[(found["title"] == "S0") & (found["nfe"] == 5), ["made", "value", "low", "high"]] = [4, 10.0, 9.0, 11.0]
    (axis,) = figures.quality(found).axes
    assert [4, 10] not in axis.collections[-1].get_offsets().tolist()
