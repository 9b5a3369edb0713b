"""Run folders in, pictures out: what is read, how seeds are put together, what faults leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from clipper.curves import aggregate, find_runs, read_curve, rolling_mean
from clipper.errors import ClipperError, ConfigError, FileError
from clipper.plotting import check_picture_path, plot_run, plot_runs

EPISODES = "step,env,episode,episode_return,episode_length,truncated,wall_seconds"
METRICS = (
    "step,policy/entropy,policy/approx_kl,value/explained_variance,"
    "eval/return_deterministic,eval/return_stochastic"
)


def make_run(
    root: Path,
    env: str = "CartPole-v1",
    name: str = "ppo",
    seed: int = 0,
    *,
    steps: Sequence[int] = (100, 200, 300),
    returns: Sequence[float] = (10.0, 20.0, 30.0),
) -> Path:
    """A run folder with an episode at each step, 1 s per 100 steps, and two iterations."""
    folder = root / env / f"{name}-{seed}"
    folder.mkdir(parents=True)
    config = {"format": 1, "env": env, "seed": seed, "name": name, "algorithm": "ppo"}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        f"{s},0,{i},{r},9,0,{s / 100}" for i, (s, r) in enumerate(zip(steps, returns, strict=True))
    ]
    (folder / "episodes.csv").write_bytes("\r\n".join([EPISODES, *rows, ""]).encode())
    metrics = [METRICS, "128,0.69,0.01,0.1,,", "256,0.6,0.02,0.5,31.5,22.25", ""]
    (folder / "metrics.csv").write_bytes("\r\n".join(metrics).encode())
    return folder


def lines_of(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written from here on."""
    figures: list[Figure] = []
    write = Figure.savefig

    def keep(self: Figure, *args: object, **kwargs: object) -> None:
        figures.append(self)
        write(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Numbers come back by episode and by iteration; a metric's empty cells are not points."""
    curve = read_curve(make_run(tmp_path, seed=3))
    assert (curve.env, curve.name, curve.seed) == ("CartPole-v1", "ppo", 3)
    assert curve.steps.tolist() == [100, 200, 300]
    assert curve.returns.tolist() == [10, 20, 30]
    assert curve.wall_seconds.tolist() == [1, 2, 3]
    steps, values = curve.measured("eval/return_deterministic")
    assert (steps.tolist(), values.tolist()) == ([256], [31.5])
    steps, values = curve.measured("policy/entropy")
    assert (steps.tolist(), values.tolist()) == ([128, 256], [0.69, 0.6])
    assert len(curve.measured("policy/unknown")[1]) == 0


@pytest.mark.parametrize("cut", [1, 2, 3, 6, 12])
def test_a_line_that_is_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    """Wherever the last line ends too early, the lines before it are read and it is not."""
    run = make_run(tmp_path)
    for name in ("episodes.csv", "metrics.csv"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[:-cut])
    curve = read_curve(run)
    assert curve.returns.tolist() == [10, 20]
    assert curve.measured("policy/entropy")[1].tolist() == [0.69]


def test_a_run_that_has_just_begun_is_read(tmp_path: Path) -> None:
    """Empty files and headers alone mean: no episodes, no metrics yet."""
    run = make_run(tmp_path)
    (run / "episodes.csv").write_text(EPISODES + "\r\n")
    (run / "metrics.csv").write_text("")
    curve = read_curve(run)
    assert len(curve.returns) == len(curve.steps) == 0
    assert not curve.metrics
    (run / "episodes.csv").write_text("")
    (run / "metrics.csv").unlink()
    assert len(read_curve(run).returns) == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json must be a file, but there is none"),
        ("episodes.csv", None, "episodes.csv must be a file, but there is none"),
        ("config.json", "{", "must be a JSON object with env, name and seed"),
        ("config.json", "[1]", "must be a JSON object with env, name and seed"),
        ("config.json", '{"env": "A", "name": "b"}', "must be a JSON object"),
        ("episodes.csv", "step,episode_return\n1,2\n", "but has no wall_seconds"),
        ("episodes.csv", f"{EPISODES}\n1,0,0,x,9,0,1\n2,0,1,5,9,0,1\n", "but line 2 is '1,0,0,x,"),
        ("episodes.csv", f"{EPISODES}\n1,0,0\n2,0,1,5,9,0,1\n", "but line 2 is '1,0,0'"),
        ("episodes.csv", f"{EPISODES}\n1\n2,0,1,5,9,0,1\n", "but line 2 is '1'"),
        ("metrics.csv", "step,policy/entropy\n1,2,3\n1,2\n", "2 numbers in every line"),
        ("metrics.csv", b"\xff\xfe\x00\n", "must be text, but is not UTF-8"),
    ],
)
def test_a_missing_or_garbled_file_is_named(
    tmp_path: Path, file: str, content: str | bytes | None, message: str
) -> None:
    """What is not what a run writes is a FileError that says which file and line."""
    run = make_run(tmp_path)
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileError) as error:
        read_curve(run)
    assert message in str(error.value)
    assert file in str(error.value)


def test_rolling_mean_is_over_the_last_values() -> None:
    """Means of the last 3 of 2 4 9 5 1: 2, (2+4)/2, 15/3, 18/3, 15/3."""
    values = np.array([2.0, 4.0, 9.0, 5.0, 1.0])
    np.testing.assert_allclose(rolling_mean(values, 3), [2, 3, 5, 6, 5])
    assert rolling_mean(np.zeros(0), 3).shape == (0,)


def test_aggregate_is_mean_and_range_where_all_curves_are_known() -> None:
    """Two lines on different steps, worked out by hand.

    a runs from (0, 0) to (40, 40), b from (10, 30) over (20, 10) to (60, 50); both are known from
    10 to 40. On 10 20 30 40: a is 10 20 30 40, b is 30 10 20 30; means 20 15 25 35.
    """
    a = (np.array([0.0, 40.0]), np.array([0.0, 40.0]))
    b = (np.array([10.0, 20.0, 60.0]), np.array([30.0, 10.0, 50.0]))
    band = aggregate([a, b], num_points=4)
    assert band is not None
    np.testing.assert_allclose(band.x, [10, 20, 30, 40])
    np.testing.assert_allclose(band.mean, [20, 15, 25, 35])
    np.testing.assert_allclose(band.low, [10, 10, 20, 30])
    np.testing.assert_allclose(band.high, [30, 20, 30, 40])


def test_aggregate_takes_the_last_of_equal_steps() -> None:
    """Episodes that ended together leave the mean after the last of them: at 5 it is 9, not 1."""
    band = aggregate([(np.array([5.0, 5.0, 10.0]), np.array([1.0, 9.0, 9.0]))], num_points=3)
    assert band is not None
    np.testing.assert_allclose(band.mean, [9, 9, 9])


def test_aggregate_of_curves_apart_is_nothing() -> None:
    """A curve that ends before another begins has no stretch in common with it."""
    a = (np.array([0.0, 10.0]), np.zeros(2))
    b = (np.array([20.0, 30.0]), np.zeros(2))
    assert aggregate([a, b]) is None


def test_find_runs_goes_down_and_sorts_as_people_do(tmp_path: Path) -> None:
    """A run is found at the path and at any depth below it, run2 before run10."""
    made = [
        make_run(tmp_path, "A-v1", "run2"),
        make_run(tmp_path, "A-v1", "run10"),
        make_run(tmp_path, "B-v1", "run1"),
    ]
    (tmp_path / "A-v1" / "empty").mkdir()
    assert find_runs(tmp_path) == made
    assert find_runs(tmp_path / "A-v1") == made[:2]
    assert find_runs(made[0]) == made[:1]


@pytest.mark.parametrize(("below", "found"), [("", "has none"), ("nowhere", "is no folder")])
def test_find_runs_of_nothing_is_an_error_with_a_hint(
    tmp_path: Path, below: str, found: str
) -> None:
    """Where there is no run the error says so, and what makes one."""
    with pytest.raises(FileError, match=found) as error:
        find_runs(tmp_path / below)
    assert "clipper train" in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_pictures_have_the_format_of_their_suffix(
    tmp_path: Path, suffix: str, start: bytes
) -> None:
    """Both pictures are written in all three formats, into folders that need not exist."""
    run = make_run(tmp_path / "runs")
    for i, draw in enumerate((plot_run, lambda r, o: plot_runs([r], o, x="wall"))):
        out = tmp_path / "pictures" / f"{i}.{suffix}"
        draw(run, out)
        assert out.read_bytes().startswith(start)
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_a_png_can_be_looked_at(tmp_path: Path) -> None:
    """The picture of a run is wide enough to read and is not blank."""
    plot_run(make_run(tmp_path), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.width >= 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10


def test_a_run_without_episodes_is_drawn(tmp_path: Path) -> None:
    """A picture can be had from the first second of a run."""
    run = make_run(tmp_path, steps=(), returns=())
    (run / "metrics.csv").write_text("")
    plot_run(run, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()


def test_signs_of_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    r"""Names with $ are text: `$\bad$` is no formula and no error."""
    run = make_run(tmp_path, "Env$\\bad$-v0", "$x_")
    plot_run(run, tmp_path / "a.png")
    plot_runs([run], tmp_path / "b.png", title="$\\bad$")


def test_many_curves_have_a_legend_and_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty names make the picture higher; nothing is said to have collapsed, no panel is squeezed."""
    runs = [make_run(tmp_path, name=f"setting-{k}") for k in range(40)]
    figures = lines_of(monkeypatch)
    plot_runs(runs, tmp_path / "a.png", title="a title " * 40)
    (axes,) = figures[0].axes
    assert axes.get_legend() is not None
    assert axes.get_window_extent().height / figures[0].dpi > 2.0
    box = figures[0].get_suptitle()
    assert box.count("\n") >= 2
    assert max(map(len, box.split("\n"))) <= 80


def test_a_single_episode_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of one point would be nothing."""
    figures = lines_of(monkeypatch)
    plot_runs([make_run(tmp_path, steps=(100,), returns=(5.0,))], tmp_path / "a.png")
    assert figures[0].axes[0].lines[0].get_marker() == "o"


def test_one_panel_per_environment_one_line_per_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds of a name are one mean line, said in the legend; a name has one colour everywhere.

    Windows of 10 episodes: the rolling means of seed 0 end at (10+20+30)/3 = 20 and of seed 1 at
    (30+40+50)/3 = 40, so that the line of ppo ends at 30, between 20 and 40.
    """
    runs = [
        make_run(tmp_path, "A-v1", "ppo", 0, returns=(10, 20, 30)),
        make_run(tmp_path, "A-v1", "ppo", 1, returns=(30, 40, 50)),
        make_run(tmp_path, "A-v1", "other", 7),
        make_run(tmp_path, "B-v1", "other", 0),
    ]
    figures = lines_of(monkeypatch)
    plot_runs(runs, tmp_path / "a.png", title="Both")
    a, b = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (a, b)] == ["A-v1", "B-v1"]
    ppo, other = a.lines
    assert ppo.get_label() == "ppo (2 seeds)"
    assert other.get_label() == "other (seed 7)"
    assert float(np.asarray(ppo.get_ydata())[-1]) == pytest.approx(30)
    assert len(a.collections) == 1  # one band: a single seed has none
    edges = a.collections[0].get_paths()[0].vertices
    assert np.asarray(edges)[:, 1].max() == pytest.approx(40)
    assert np.asarray(edges)[:, 1].min() == pytest.approx(10)
    assert b.lines[0].get_color() == other.get_color() != ppo.get_color()
    legend = a.get_legend()
    assert legend is not None
    assert "lowest to highest" in legend.get_title().get_text()


def test_training_time_is_the_other_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With x="wall" the line goes from the first to the last episode's seconds: 1 to 3."""
    figures = lines_of(monkeypatch)
    plot_runs([make_run(tmp_path)], tmp_path / "a.png", x="wall")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "training time (s)"
    times = np.asarray(axes.lines[0].get_xdata())
    assert (times[0], times[-1]) == (1, 3)


def test_seeds_without_episodes_are_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed that has just begun does not hold up the picture, and the legend says so."""
    runs = [make_run(tmp_path, seed=s) for s in (0, 1)]
    runs.append(make_run(tmp_path, seed=2, steps=(), returns=()))
    figures = lines_of(monkeypatch)
    plot_runs(runs, tmp_path / "a.png")
    assert figures[0].axes[0].lines[0].get_label() == "ppo (2 seeds; 1 without episodes)"
    with pytest.raises(FileError, match="none has"):
        plot_runs(runs[2:], tmp_path / "a.png")


def test_seeds_with_nothing_in_common_are_drawn_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mean is made up for steps that only some seeds have reached, and no band."""
    runs = [
        make_run(tmp_path, seed=0, steps=(1, 2, 3)),
        make_run(tmp_path, seed=1, steps=(10, 20, 30)),
    ]
    figures = lines_of(monkeypatch)
    plot_runs(runs, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3], [10, 20, 30]]
    assert axes.lines[0].get_label() == "ppo (2 seeds), each a line"
    assert axes.lines[1].get_label().startswith("_")
    assert not axes.collections


def test_wrong_settings_are_refused_before_a_run_is_read(tmp_path: Path) -> None:
    """Suffix, axis and an empty list are checked first: the run does not even exist."""
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match=r"must end in \.png") as error:
        plot_run(nowhere, tmp_path / "a.jpg")
    assert str(tmp_path / "a.png") in str(error.value)
    with pytest.raises(ConfigError, match=r"must end in \.png"):
        plot_runs([nowhere], "a")
    with pytest.raises(ConfigError, match="x must be steps or wall"):
        plot_runs([nowhere], "a.png", x="time")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one run"):
        plot_runs([], "a.png")
    assert check_picture_path("a.PDF") == Path("a.PDF")


def test_an_error_midway_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether drawing or renaming fails, the old file stands and nothing else is left."""
    run = make_run(tmp_path / "runs")
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / "curve.png"
    out.write_bytes(b"old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(FileError, match=r"curve\.png must be writable, but No space left"):
            plot_run(run, out)
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="No space left"):
            plot_run(run, out)
    assert out.read_bytes() == b"old"
    assert list(folder.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_a_file_error(tmp_path: Path) -> None:
    """A file where a folder is needed is named, with the cause."""
    run = make_run(tmp_path / "runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipperError, match="must be writable, but"):
        plot_run(run, tmp_path / "file" / "curve.png")


def test_importing_the_module_does_not_import_matplotlib() -> None:
    """matplotlib, torch and gymnasium wait until something is drawn, or for ever."""
    code = (
        "import sys, clipper.plotting; "
        "print([m for m in ('matplotlib', 'torch', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
