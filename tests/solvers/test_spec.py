"""A sampler's sentence: what is written is read back, and is the same sentence."""

import importlib

import pytest

from fastsample.models.catalogue import open_model
from fastsample.models.path import VPLinear
from fastsample.results.store import Store
from fastsample.solvers import grids, solver
from fastsample.solvers.grids import GridError, SettingError
from fastsample.solvers.learned.starts import Start
from fastsample.solvers.solver import solvers
from fastsample.solvers.spec import Spec

from ..command import command


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("scire", "scire"),
        ("scire:mode=multistep,order=3", "scire:order=3,mode=multistep"),
        (" unipc : official = TRUE , order=2 ", "unipc:order=2,official=true"),
        ("edm-dpm2:r=0.50@karras:rho=7.0", "edm-dpm2:r=0.5@karras:rho=7"),
        ("dopri5:rtol=0.00001,atol=1e-6", "dopri5:rtol=1e-05,atol=1e-06"),
        ("edm-dpm2:r=0.30000000000000004", "edm-dpm2:r=0.30000000000000004"),
        ("ddim@vp-time:rho=2,eps=0.01", "ddim@vp-time:eps=0.01,rho=2"),
        ("scire:phi=0.75", "scire:phi=0.75"),
        ("bns", "bns"),
    ],
)
def test_a_sentence_is_written_in_one_way(text, canonical):
    spec = Spec.parse(text)
    assert str(spec) == canonical
    assert Spec.parse(canonical) == spec


def test_every_variant_of_every_solver_is_read_back():
    for one in solvers().values():
        for options in (*one.variants, {"denoise": True, "afs": True}):
            spec = Spec.parse(str(Spec(one.name, options)))
            assert spec.options == options
            assert spec.settings == one.settings(options)
            assert list(spec.options) == [key for key in one.known_options if key in options]


def test_a_grid_of_a_file_is_named_by_its_content(tmp_path):
    (tmp_path / "t").write_text("1.0 0.5 0.001")
    spec = Spec.parse(f"ddim@file:{tmp_path}/t")
    assert spec.plan(VPLinear(), 2).times == (1.0, 0.5, 0.001)
    told = str(spec)
    assert told.startswith("ddim@file:t@")
    again = Spec.parse(f"ddim@file:{tmp_path}/{told.removeprefix('ddim@file:')}")
    assert again == spec
    start = Start.parse(f"euler@file:{tmp_path}/t~3")
    assert (start.noise, start.sampler.grid) == (3, spec.grid)
    with pytest.raises(GridError, match="No such file"):
        Spec.parse("ddim@file:~/no-such-file-of-times")


def test_the_plan_of_a_learned_solver_is_its_table():
    model = open_model("cifar10-tiny-vp")
    plan, table = Spec.parse("bns").plan_for(model, 8)
    assert (table.solver, table.nfe, plan.nfe, str(plan.grid)) == ("bns", 8, 8, "learned")
    assert not Spec.parse("bns").gridded
    assert Spec.parse("bns").settings == {}
    plan, table = Spec.parse("dpmpp-2m@karras").plan_for(model, 8)
    assert table is None
    assert plan.times == solvers()["dpmpp-2m"].plan(model.path, 8, "karras").times


def test_no_option_of_a_registered_solver_takes_any_number():
    """Its range says which, or it is one of a few; and infinity and no number are none."""
    for one in solvers().values():
        for key, default in one.known_options.items():
            if isinstance(default, bool) or not isinstance(default, int | float):
                continue
            assert key in one.ranges or key in one.choices, (one.name, key)
            for value in ("nan", "inf", "-inf", "1e300", "-1e300"):
                with pytest.raises(SettingError):
                    Spec.parse(f"{one.name}:{key}={value}")


GRID = '''
from fastsample.solvers.grids import register_grid

@register_grid("cubic", k=(1, 5))
def cubic(path, n, t_start, t_end, *, k=3.0):
    """Times whose k-th roots are equal steps."""
    return [t_start + (t_end - t_start) * (1 - (1 - i / n) ** k) for i in range(n + 1)]
'''


def test_a_grid_is_added_by_one_file(tmp_path, monkeypatch):
    for registry in (grids.GRIDS, grids._RANGES):
        monkeypatch.setitem(registry, "cubic", None)
    (tmp_path / "cubic_times.py").write_text(GRID)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("cubic_times")
    assert "Times whose k-th roots are equal steps." in command("list", "grids").out
    words = ["bench", "--model", "gmm2d", "--nfe", "4", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    assert command(*words, "--solver", "ddim@cubic:k=2,euler", "--grid", "cubic").code == 0
    assert sorted(row.grid for row in Store(tmp_path / "s").rows()) == ["cubic", "cubic:k=2"]
    assert "k is a number from 1 to 5" in command(*words, "--grid", "cubic:k=9").err


def test_a_number_without_a_range_is_finite(monkeypatch):
    def shrink(denoiser, x, times, *, k: float = 1.0):
        """Nothing but a factor."""
        return k * x

    monkeypatch.setattr(solver, "_SOLVERS", dict(solver._SOLVERS))
    solver.register("shrink", solver.Facts(title="", paper="", coordinate="x0", order=0))(shrink)
    assert Spec.parse("shrink:k=3").settings["k"] == 3.0
    for value in ("nan", "inf"):
        with pytest.raises(SettingError, match=f"k is a number, not {value}"):
            Spec.parse(f"shrink:k={value}")
