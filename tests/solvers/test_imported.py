"""Published learned solvers: files in their layouts, against a direct reading of the papers' formulas."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.imported.dss import dss_flow, published_dss, shipped_dss
from fastsample.solvers.imported.files import read_published
from fastsample.solvers.imported.importing import import_published
from fastsample.solvers.imported.layouts import Said
from fastsample.solvers.learned.shelf import find_table, table_plan
from fastsample.solvers.proofs.explain import explain
from fastsample.solvers.proofs.golden import cases
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import play
from fastsample.solvers.table_file import read_table

from . import published_files as files

DATA = Path(__file__).parents[1] / "data"
PATHS = {"edm": Edm(), "vp": VPLinear(), "ddpm": DiscreteVP.ddpm(), "flow": LinearFlow()}
Z = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
NOISES = torch.randn(9, 6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def exact(name):
    path = PATHS[name]
    return replace(open_model("gmm2d"), path=path, make=lambda *_: ring_mixture(path))


def played(file, model, **said):
    """The samples of an imported file, and what it was kept as."""
    kept = import_published(read_published(file), model, Said(**said))
    plan, table = Spec.parse(kept.solver).plan_for(model, kept.nfe)
    denoiser = model.make(None, None, 0.0, None)
    x = plan(denoiser, model.path.prior_std * Z, lambda step: NOISES[step])
    assert denoiser.nfe == kept.nfe == table.nfe
    return x, table


def data(y, s):
    """D(y; s) of the exact problem in EDM's space, which no path decides."""
    return ring_mixture(Edm()).x0(y, s)


def levels(path, n, schedule, rho=1.0):
    """diff-sampler's get_schedule, by its formulas."""
    high, low = path.nsr(path.t_noise), path.nsr(path.t_data)
    i = np.arange(n + 1) / n
    if schedule == "polynomial":
        return (high ** (1 / rho) + i * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    if schedule == "logsnr":
        return np.exp(math.log(high) + i * (math.log(low) - math.log(high)))
    if schedule == "time_uniform":
        eps = 1e-3
        beta_d = 2 * (math.log(low**2 + 1) / eps - math.log(high**2 + 1)) / (eps - 1)
        beta_min = math.log(high**2 + 1) - 0.5 * beta_d
        t = (1 + i * (eps ** (1 / rho) - 1)) ** rho
        return np.sqrt(np.exp(0.5 * beta_d * t**2 + beta_min * t) - 1)
    ends = path.t_noise ** (1 / rho), path.t_data ** (1 / rho)
    return np.array([path.nsr(t) for t in (ends[0] + i * (ends[1] - ends[0])) ** rho])


def on_path(path, y, s):
    """A state of EDM's space on a path."""
    return y if path.name == "edm" else y / math.sqrt(1 + s**2)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def float32(rng, *shape):
    """Numbers that a file keeps exactly."""
    return rng.standard_normal(shape).astype(np.float32).astype(float)


@pytest.mark.parametrize(
    ("name", "n", "afs", "scaled", "schedule", "rho"),
    [
        ("edm", 4, True, True, "polynomial", 7.0),
        ("edm", 6, False, False, "time_uniform", 1.0),
        ("vp", 4, False, True, "logsnr", 1.0),
        ("ddpm", 5, True, True, "discrete", 1.0),
        ("vp", 5, True, True, "discrete", 2.0),
    ],
)
def test_dyweight_is_its_formula(name, n, afs, scaled, schedule, rho, tmp_path):
    rng, model = np.random.default_rng(n), exact(name)
    mask = np.tril(np.ones((n, n))) * (np.subtract.outer(np.arange(n), np.arange(n)) < 3)
    w = np.where(np.eye(n) > 0, 1.2, 0) + 0.15 * float32(rng, n, n)
    w = np.float32(w).astype(float)
    z = (1 + np.float32(0.1 * rng.random(n - afs))).astype(np.float32).astype(float)
    hidden = np.where(mask > 0, w, 9.0)  # which the mask hides
    file = files.dyweight(
        tmp_path / "a.pkl", hidden, z if scaled else None, mask, afs=afs, schedule_type=schedule, schedule_rho=rho
    )
    made, table = played(file, model)

    g, w, z = levels(model.path, n, schedule, rho), w * mask, list(z) if scaled else [1.0] * n
    y, tau, slopes = g[0] * Z, g[0], []
    for i in range(n):
        if afs and i == 0:
            slopes.append(y / math.sqrt(1 + tau**2))
        else:
            slopes.append((y - data(y, abs(z[i - afs] * tau))) / (tau + 1e-8))
        y = y + (g[i + 1] - tau) * sum(w[i, j] * slopes[j] for j in range(i + 1))
        tau = tau + (g[i + 1] - tau) * w[i, : i + 1].sum()
    torch.testing.assert_close(made, on_path(model.path, y, max(tau, 0.0)), rtol=0, atol=1e-10)
    assert (table.trained_on, table.nfe) == ("Inception", n - afs)
    assert "imported, unverified model: a.pkl" in table.trained_with
    if name == "edm":
        assert table.end == pytest.approx(tau, abs=1e-12)  # the drifted level


def test_without_a_mask_the_window_hides_weights(tmp_path):
    w = np.float32(np.eye(4) + 0.1).astype(float)
    window = np.tril(np.ones((4, 4))) * (np.subtract.outer(np.arange(4), np.arange(4)) < 2)
    hidden = files.dyweight(tmp_path / "a.pkl", w, None, None, window=2)
    plain = files.dyweight(tmp_path / "b.pkl", w * window, None, window)
    assert torch.equal(played(hidden, exact("edm"))[0], played(plain, exact("edm"))[0])


def test_dyweight_on_a_flow_is_its_formula(tmp_path):
    rng, model, k = np.random.default_rng(1), exact("flow"), 4
    theta = np.float32(np.eye(k) + 0.2 * rng.standard_normal((k, k))).astype(float)
    phi = float32(rng, k)
    file = files.dyweight_flow(tmp_path / "a.pt", theta, phi, window=2)
    made, table = played(file, model, grid="shift:s=3")

    z, below = 0.5 + sigmoid(phi), np.subtract.outer(np.arange(k), np.arange(k))
    w = theta * (below >= 0) * (below < 2)
    g = [3 * s / (1 + 2 * s) for s in 1 - np.arange(k + 1) / k]
    flow = ring_mixture(LinearFlow())
    x, tau, slopes = Z, 1.0, []
    for i in range(k):
        slopes.append(-flow.velocity(x, 1 - z[i] * tau))  # dx/d sigma
        x = x + (g[i + 1] - tau) * sum(w[i, j] * slopes[j] for j in range(i + 1))
        tau = tau + (g[i + 1] - tau) * w[i, : i + 1].sum()
    torch.testing.assert_close(made, x, rtol=0, atol=1e-10)
    assert (table.coordinate, table.trained_on, table.end) == ("velocity", "squared error", pytest.approx(1 - tau))


def parallel(path, g, r, weight, c, a, afs, order=0, gamma=None):
    """EPD, its plugin, and AdaSDE."""
    known = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    y, past = g[0] * Z, []
    for i, (s, t) in enumerate(zip(g[:-1], g[1:], strict=True)):
        if gamma is not None and i:
            raised = (1 + gamma[i]) * s
            y, s = y + math.sqrt(raised**2 - s**2) * NOISES[i], raised
        d = y / math.sqrt(1 + s**2) if afs and i == 0 else (y - data(y, s)) / s
        past = [d, *past][: max(order, 1)]
        along, total = sum(w * one for w, one in zip(known[len(past)], past, strict=True)), 0
        for k in range(r.shape[1]):
            m = t ** r[i, k] * s ** (1 - r[i, k])
            there = y + (m - s) * along
            total = total + weight[i, k] * c[i, k] * (there - data(there, a[i, k] * m)) / m
        y = y + (t - s) * total
    return on_path(path, y, g[-1])


def raw(rng, n, k):
    names = ("r_params", "scale_dir_params", "scale_time_params", "weight_s")
    return {name: float32(rng, n, k) for name in names}


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "n", "k", "facts"),
    [
        ("edm", 3, 2, {}),
        ("edm", 3, 3, {"afs": False, "schedule_type": "polynomial", "schedule_rho": 7.0, "scale_dir": 0.0}),
        ("edm", 4, 2, {"sampler_stu": "ipndm", "max_order": 3}),
        ("vp", 3, 2, {"fcn": True, "schedule_type": "logsnr"}),
        ("ddpm", 3, 2, {"sampler_stu": "ipndm", "max_order": 4, "schedule_type": "discrete"}),
    ],
)
def test_epd_is_its_formula(name, n, k, facts, tmp_path):
    model, numbers = exact(name), raw(np.random.default_rng(n), n, k)
    made, table = played(files.epd(tmp_path / "a.pkl", numbers, **facts), model)
    told = {"afs": True, "schedule_type": "time_uniform", "schedule_rho": 1.0, "scale_dir": 0.05} | facts
    g = levels(model.path, n, told["schedule_type"], told["schedule_rho"])
    c = 2 * told["scale_dir"] * sigmoid(0.5 * numbers["scale_dir_params"]) + 1 - told["scale_dir"]
    a = 2 * 0.2 * sigmoid(0.5 * numbers["scale_time_params"]) + 1 - 0.2
    if facts.get("fcn"):
        c[-1] = 1
    order = facts.get("max_order", 0)
    expected = parallel(
        model.path, g, sigmoid(numbers["r_params"]), softmax(numbers["weight_s"]), c, a, told["afs"], order
    )
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)
    assert table.solver == ("epd-ipndm" if order else "epd")
    assert table.nfe == n * (1 + k) - told["afs"]
    assert f"depth {2 * n - told['afs']} where" in table.trained_with
    assert table.trained_on == "Inception"


def test_adasde_is_its_formula(tmp_path):
    model, rng = exact("edm"), np.random.default_rng(8)
    numbers = raw(rng, 3, 2) | {"gamma_params": float32(rng, 3, 2)}
    made, table = played(files.adasde(tmp_path / "a.pkl", numbers), model)
    w = softmax(numbers["weight_s"])
    gamma = (w * (2e-4 + (0.01 - 2e-4) * sigmoid((numbers["gamma_params"] + 2 * math.log(1.5)) / 2))).sum(1)
    c, a = 1 + 0.05 * np.tanh(numbers["scale_dir_params"] / 2), 1 + 0.2 * np.tanh(numbers["scale_time_params"] / 2)
    g = levels(model.path, 3, "time_uniform")
    expected = parallel(model.path, g, sigmoid(numbers["r_params"]), w, c, a, True, gamma=gamma)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)
    assert table.w


@pytest.mark.parametrize(("name", "order", "mode"), [("vp", 4, "theory"), ("vp", 2, "lms-pc"), ("edm", 4, "theory")])
def test_gas_is_its_formula(name, order, mode, tmp_path):
    model, rng, n = exact(name), np.random.default_rng(order), 4
    theta, xi = float32(rng, n - 1), np.float32(0.002 * rng.random(n)).astype(float)
    rows = [np.float32(0.01 * rng.standard_normal(n)).astype(float) for _ in range(2 * order)]
    if mode == "lms-pc":
        rows[0] = rows[0] + 1
        rows = [np.float32(row).astype(float) for row in rows]
    made, table = played(files.gas(tmp_path / "a.pt", theta, xi, rows), model, t_end=2e-3, mode=mode)

    # EDM's model on the VP path whose noise levels are its own at both ends.
    vp = VPLinear()
    ends = max(vp.nsr(2e-3), 0.002), min(vp.nsr(1.0), 80.0)
    log = [math.log1p(s**2) for s in ends]
    beta_d = 2 * (log[0] / 2e-3 - log[1]) / (2e-3 - 1) if name == "edm" else 19.9
    beta_0 = log[1] - beta_d / 2 if name == "edm" else 0.1

    def alpha(t):
        return math.exp(-0.25 * beta_d * t * t - 0.5 * beta_0 * t)

    def sigma(t):
        return math.sqrt(1 - alpha(t) ** 2)

    def lam(t):
        return math.log(alpha(t) / sigma(t))

    mu = 1e-5 + (1 - 2e-5) * sigmoid(theta)
    t = [1.0, *[2e-3 + (1 - 2e-3) * (1 - np.prod(mu[:k])) for k in range(n - 1, 0, -1)], 2e-3]
    c, a = rows[::2], rows[1::2]
    x, xs, X = Z * (80 * alpha(1.0) if name == "edm" else 1), [], []
    for i in range(n):
        s, e, moved = t[i], t[i + 1], t[i] + xi[i]
        eps = (x - alpha(moved) * data(x / alpha(moved), sigma(moved) / alpha(moved))) / sigma(moved)
        xs, X = [x, *xs], [(x - sigma(s) * eps) / alpha(s), *X]
        h, r, q = lam(e) - lam(s), sigma(e) / sigma(s), min(i + 1, order)
        p1 = math.expm1(-h)
        if mode == "lms-pc":
            C = -alpha(e) * p1
            for lists in (c, a):
                x = r * x + C * sum(lists[m][i] * X[m] for m in range(q))
            continue
        x = (r + a[0][i]) * x - (alpha(e) * p1 + c[0][i]) * X[0] + sum(a[m][i] * xs[m] for m in range(1, q))
        if q >= 2:
            r0 = (lam(s) - lam(t[i - 1])) / h
            D10 = (X[0] - X[1]) / r0
        if q == 2:
            x = x - (alpha(e) * p1 / 2 + c[1][i]) * D10
        if q >= 3:
            r1 = (lam(t[i - 1]) - lam(t[i - 2])) / h
            D11 = (X[1] - X[2]) / r1
            D1, D2 = D10 + r0 / (r0 + r1) * (D10 - D11), (D10 - D11) / (r0 + r1)
            p2 = p1 / h + 1
            x = x + (alpha(e) * p2 + c[1][i]) * D1 - (alpha(e) * (p2 / h - 0.5) + c[2][i]) * D2
        for m in range(3, q):
            x = x + c[m][i] * X[m]
    expected = x / alpha(t[-1]) if name == "edm" else x
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)
    assert table.trained_on == "GAN"


def test_ld3_is_the_solver_at_its_times(tmp_path):
    """Euler's method in sigma on the noise prediction, each at a time of its own."""
    model, rng, n = exact("vp"), np.random.default_rng(5), 5
    logits, offsets = float32(rng, n + 1), np.float32(0.01 * rng.standard_normal(n + 1)).astype(float)
    path, file = model.path, files.ld3(tmp_path / "a.pt", logits, offsets)
    sums = np.cumsum(np.exp(logits) / np.exp(logits).sum())
    for mode in ("time", "lambda"):
        made, table = played(file, model, solver="edm-euler", mode=mode)
        if mode == "time":
            t = path.t_data + (sums[::-1] - sums[0]) / (sums[-1] - sums[0]) * (path.t_noise - path.t_data)
            most = 0.5 * np.abs(np.diff(t)).min()
            asked = t + np.clip(offsets, -most, most)
        else:
            ends = path.lam(path.t_noise), path.lam(path.t_data)
            lam = ends[0] + (sums - sums[0]) / (sums[-1] - sums[0]) * (ends[1] - ends[0])
            most = 0.5 * np.abs(np.diff(logits)).min()  # of the logits, as the released code has it
            t = [path.t_of_lam(float(one)) for one in lam]
            asked = [path.t_of_lam(float(one)) for one in lam + np.clip(offsets, -most, most)]
        asked[0], x = t[0], Z
        for i in range(n):
            at, ratio = float(asked[i]), path.alpha(t[i + 1]) / path.alpha(t[i])
            noise = (x - path.alpha(at) * data(x / path.alpha(at), path.nsr(at))) / path.sigma(at)
            x = ratio * x + (path.sigma(t[i + 1]) - ratio * path.sigma(t[i])) * noise
        torch.testing.assert_close(made, x, rtol=0, atol=1e-10)
        assert (table.trained_on, table.nfe) == ("LPIPS", n)


def test_tables_are_the_golden_ones():
    """Times, rows and the drifted end of DyWeight's and EPD's canonical tables."""
    from fastsample.solvers.imported.dyweight import dyweight_table
    from fastsample.solvers.imported.epd import epd_points, epd_table
    from fastsample.solvers.imported.space import outer_levels, space_of

    found = [(name, case) for name, case in cases(DATA / "golden") if name.startswith(("dyweight", "epd"))]
    assert len(found) >= 11
    for name, case in found:
        given, told = case["options"], case["options"]["parameters"]
        grid = outer_levels(Edm(), given["num_steps"] - 1, given["schedule_type"], given["schedule_rho"])
        if name.startswith("dyweight"):
            scales = np.array(told["t_scale"] or [])
            table = dyweight_table(space_of(Edm()), grid, np.array(told["hybrid_weights"]), scales, given["afs"])
        else:
            numbers = tuple(
                np.array(told[key]) for key in ("r_params", "weight_s", "scale_dir_params", "scale_time_params")
            )
            points = epd_points(numbers, given["scale_dir"], given["scale_time"])
            table = epd_table(space_of(Edm()), grid, points, given["afs"], given.get("max_order", 0))
        golden = case["table"]
        assert table.coordinate == golden["coordinate"]
        assert table.end == pytest.approx(golden["end"], abs=1e-10)
        np.testing.assert_allclose(table.times, golden["times"], rtol=1e-10)
        np.testing.assert_allclose(table.a, golden["a"], rtol=0, atol=1e-9)
        for i, row in enumerate(golden["b"]):
            np.testing.assert_allclose(table.b[i, : len(row)], row, rtol=1e-9, atol=1e-9)


def test_public_layouts_are_read_number_for_number(tmp_path):
    """Files that another program wrote in these layouts, and what is in them."""
    told = json.loads(gzip.decompress((DATA / "published" / "fmt_learned_index.json.gz").read_bytes()))["files"]
    found = {}
    for name in told:
        (tmp_path / name).write_bytes(gzip.decompress((DATA / "published" / f"{name}.gz").read_bytes()))
        found[told[name]["kind"]] = read_published(tmp_path / name), told[name]
    file, known = found["dyweight"]
    np.testing.assert_array_equal(file.numbers["hybrid_weights"] * file.numbers["mask"], known["effective"])
    np.testing.assert_array_equal(file.numbers["t_scale"], known["t_scale"])
    assert file.loss["solver_tea"] == known["teacher"]
    assert file.sha256 == known["sha256"]
    file, known = found["epd"]
    for name, values in known["raw"].items():
        np.testing.assert_array_equal(file.numbers[name], values)
    file, known = found["amed"]
    for name, layer in known["layers"].items():
        for part, values in layer.items():
            np.testing.assert_array_equal(file.numbers[f"{name}.{part}"], values)
    file, known = found["gas"]
    assert [file.numbers[name.removesuffix("_diff")].tolist() for name in known["order"]] == known["values"]
    file, known = found["ld3"]
    assert [file.numbers[name].tolist() for name in ("params1", "params2")] == [known["params1"], known["params2"]]
    file, known = found["dyweight_flux"]
    effective = file.numbers["theta"] * file.numbers["tril_mask"] * file.numbers["win_mask"]
    np.testing.assert_array_equal(effective, known["theta"])
    np.testing.assert_allclose(0.5 + sigmoid(file.numbers["phi"]), known["t_scale"], rtol=1e-6)


def test_steps_of_a_flow_are_divided_by_their_sum():
    worst = 0.0
    for name, case in cases(DATA / "golden"):
        if name.startswith("dss_flow|dss|gmm2d"):
            given, denoiser = case["options"], ring_mixture(LinearFlow())
            table = dss_flow(denoiser.path, given["time_deltas"], given["coefficients_strict_lower"])
            assert table.end == 1
            x = play(table, denoiser, torch.tensor(case["x_init"], dtype=torch.float64))
            worst = max(worst, (x - torch.tensor(case["x_final_normalised"], dtype=x.dtype)).abs().max().item())
    assert 0 < worst < 1e-8


def test_published_tables_are_found_for_their_model_alone():
    name, flow = published_dss()["solver"], open_model("gmm2d-flow")
    sit = replace(flow, id="sit-xl2-256", sha256="0" * 64, conditions="1" * 16)
    assert {file.model for file in shipped_dss()} == {"sit-xl2-256", "flowdcn-b2-256", "dit-xl2-256"}
    for nfe in range(5, 11):
        table = find_table(name, sit, nfe)
        assert (table.model, table.nfe, table.end, table.trained_on) == (sit.id, nfe, 1.0, "FID")
        assert "arXiv 2505.21114, appendix J.1" in table.trained_with
    with pytest.raises(ValueError, match="there are tables for NFE 5, 6, 7, 8, 9, 10"):
        find_table(name, sit, 4)
    with pytest.raises(ValueError, match=r"but for .*sit-xl2-256.*--transfer"):
        find_table(name, flow, 5)
    with pytest.raises(ValueError, match="there is no table for this model and guidance"):
        find_table(name, sit, 5, 0.5)
    dit = replace(open_model("gmm2d"), id="dit-xl2-256", path=DiscreteVP.ddpm())
    assert find_table(name, dit, 5).coordinate == "x0"
    steps, weights = published_dss()["models"]["sit-xl2-256"]["5"]
    b = find_table(name, sit, 5).b  # x_1 = x_0 + dt_0 v_0 and so on
    dt = np.array(steps) / sum(steps)
    np.testing.assert_allclose(b[1], [dt[0]], rtol=1e-12)
    np.testing.assert_allclose(b[2], [dt[0] + dt[1] * weights[1][0], dt[1] * (1 - weights[1][0])], rtol=1e-12)


def test_the_guidance_is_the_file_s_or_asked_for(tmp_path):
    plain, classes = exact("edm"), replace(exact("edm"), num_classes=3)
    sd = files.dyweight(tmp_path / "a.pkl", np.eye(2), np.ones(1), guidance_type="cfg", guidance_rate=7.5)
    assert import_published(read_published(sd), classes, Said()).guidance == 6.5
    assert find_table("dyweight", classes, 1, 6.5).guidance == 6.5
    with pytest.raises(ValueError, match=r"learned at cfg scale 7\.5, which is --guidance 6\.5, not 2"):
        import_published(read_published(sd), classes, Said(guidance=2.0))
    with pytest.raises(ValueError, match="has no classes to guide by"):
        import_published(read_published(sd), plain, Said())
    ld3 = read_published(files.ld3(tmp_path / "a.pt", np.ones(4), np.zeros(4)))
    told = {"solver": "unipc", "mode": "lambda"}
    with pytest.raises(ValueError, match="does not say its guidance: give --guidance W, 0 for none"):
        import_published(ld3, classes, Said(**told))
    assert import_published(ld3, classes, Said(guidance=1.5, **told)).guidance == 1.5
    adm = files.epd(tmp_path / "b.pkl", raw(np.random.default_rng(0), 3, 2), guidance_type="cg", guidance_rate=2.0)
    with pytest.raises(ValueError, match="under a classifier's guidance"):
        import_published(read_published(adm), classes, Said())


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "Inception"), ({"loss": "piecewise"}, "Inception"), ({"loss": "l2"}, "squared error"),
        ({"loss": "piecewise", "data": "ms_coco"}, "squared error"),
    ],
)  # fmt: skip
def test_what_dyweight_was_trained_on(facts, said, tmp_path):
    assert (
        played(files.dyweight(tmp_path / "a.pkl", np.eye(3), np.ones(2), **facts), exact("edm"))[1].trained_on == said
    )


def test_epd_tuned_by_preference_says_so(tmp_path):
    numbers = raw(np.random.default_rng(0), 3, 2)
    file = files.epd(tmp_path / "a.pkl", numbers, backend="sd3", afs=False, scale_dir=0.0, scale_time=0.0)
    made, table = played(file, exact("flow"), grid="shift:s=3")
    assert table.trained_on == "reward"
    flow, r, w = ring_mixture(LinearFlow()), sigmoid(numbers["r_params"]), softmax(numbers["weight_s"])
    g, x = [1 - t for t in (0.999 * u / (u + 3 * (1 - u)) for u in (0, 1 / 3, 2 / 3, 1))], Z
    for i, (s, t) in enumerate(zip(g[:-1], g[1:], strict=True)):
        v, total = -flow.velocity(x, 1 - s), 0
        for k in range(2):
            m = t ** r[i, k] * s ** (1 - r[i, k])
            total = total - w[i, k] * flow.velocity(x + (m - s) * v, 1 - m)
        x = x + (t - s) * total
    torch.testing.assert_close(made, x, rtol=0, atol=1e-10)


def test_a_level_below_zero_is_compared_with_clean_data(tmp_path):
    w = 1.4 * np.eye(3)
    model = exact("edm")
    made, table = played(files.dyweight(tmp_path / "a.pkl", w, np.ones(3), np.eye(3), afs=False), model)
    assert table.end < 0
    plan, _ = Spec.parse("dyweight").plan_for(model, 3)
    assert plan.end == 0
    assert torch.isfinite(made).all()


def test_explain_and_json_say_whose_numbers_they_are(tmp_path):
    _, table = played(files.epd(tmp_path / "a.pkl", raw(np.random.default_rng(2), 2, 2)), exact("vp"))
    told = explain(table)
    assert told.convention.startswith("imported, unverified model: a.pkl (")
    (tmp_path / "a.json").write_text(table.to_json())
    assert read_table(tmp_path / "a.json") == table
    assert table_plan(table).end == pytest.approx(1e-3)
