import pytest


@pytest.fixture
def axes(monkeypatch):
    """All axes of what is saved as a picture, as matplotlib holds them."""
    from matplotlib.figure import Figure

    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: drawn.extend(self.axes) or savefig(self, *a, **k))
    return drawn


@pytest.fixture
def pixels():
    """Reads a PNG as (H, W, 3) whole numbers from 0 to 255."""
    from matplotlib.image import imread

    return lambda path: (imread(path)[..., :3] * 255).round().astype(int)
