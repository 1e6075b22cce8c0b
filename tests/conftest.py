import http.server
import os
import stat
import sys
import threading
from http import HTTPStatus
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fastsample.bench.cli import app as cli
from fastsample.bench.learning import distillation
from fastsample.bench.metrics import solution as reference
from fastsample.bench.metrics import tools
from fastsample.bench.metrics.measures import solution
from fastsample.datasets.published_moments import published_references
from fastsample.models.checkpoints import DenoiserMetadata, save_checkpoint
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.public import transfer

torch.set_num_threads(1)  # small tensors: threads only get in each other's way, most of all under pytest-xdist


@pytest.fixture
def full_device(tmp_path):
    """A device that is always full; one of the test's own where it may make one, since root can replace /dev/full."""
    node = tmp_path / "full"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        return Path("/dev/full")
    return node


@pytest.fixture
def flips():
    """A function that writes a file with one bit flipped, every `step`-th in turn, and yields after each."""

    def flipped(file, step=97):
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), step):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            yield bit

    return flipped


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Caches of a test stay in its own folder."""
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))


class Handler(http.server.BaseHTTPRequestHandler):
    """Breaks the first connection of each file in the middle."""

    def do_GET(self):
        if self.path not in self.server.files:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        data, wanted = self.server.files[self.path], self.headers.get("Range")
        self.server.ranges.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(data[start:] if wanted else data[: len(data) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of `files` on this machine, which keeps the `ranges` that are asked for."""
    monkeypatch.setattr(transfer, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def listed():
    """The list of published reference statistics, to be changed for one test."""
    known = published_references()
    before = known[:]
    yield known
    known[:] = before


def coarsen(change, nfe=8):
    """Reference solutions of few steps and few samples, by `change(module, name, value)`."""
    change(reference, "NFE", nfe)
    for module in (reference, tools, distillation):
        change(module, "BATCH", 8)
    for module in (reference, solution):
        change(module, "PROBES", 2)


@pytest.fixture
def coarse(monkeypatch):
    coarsen(monkeypatch.setattr)


class UntrainedInception(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception-v3 that goes without its weights."""

    def load_state_dict(self, *_):
        pass


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Weights from a seed, in the file that torch-fidelity reads."""
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({}, file)
    network = UntrainedInception("inception-v3-compat", ["2048"], str(file))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter, generator=generator)
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a small network with random weights as FILE.safetensors; the path."""

    def write(name, data="none", size=8, classes=0, seed=0):
        torch.manual_seed(seed)
        arguments = dict(
            img_resolution=size, in_channels=3, out_channels=3, model_channels=8, channel_mult=[1], num_blocks=1,
            attn_resolutions=[], label_dim=classes,
        )  # fmt: skip
        metadata = DenoiserMetadata(
            id=name, title=name, network="SongUNet", network_args=arguments, image_shape=(3, size, size),
            num_classes=classes, data=data, data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={},
            loss="none", precision="float32", storage="float32", path="vp-linear", prediction="eps", time_scale=1000.0,
            times="uniform",
        )  # fmt: skip
        save_checkpoint(tmp_path / f"{name}.safetensors", SongUNet(**arguments).state_dict(), metadata)
        return str(tmp_path / f"{name}.safetensors")

    return write


@pytest.fixture
def command(monkeypatch, capsys):
    """The command line in this process, as its entry point runs it: (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["fastsample", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call
