import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Caches of a test stay in its own folder."""
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
