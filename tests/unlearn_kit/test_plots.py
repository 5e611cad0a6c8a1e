from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from unlearn_kit.plots import looks, picture_strip, tradeoff_figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def tradeoff(**changes: object) -> Figure:
    given = {
        "points": {"finetune": (0.9, 0.92), "perturbed_sign": (0.0, 0.91)},
        "curves": {"perturbed_sign over retain weight": [(0.0, 0.5, "0"), (0.2, 0.8, "1"), (0.6, 0.9, "10")]},
        "reference": (0.0, 0.93),
        "original": (0.9, 0.92),
        "xlabel": "forgotten",
        "ylabel": "retained",
        "title": "digits",
    }
    return tradeoff_figure(**{**given, **changes})  # type: ignore[arg-type]


def test_tradeoff_names_everything_it_shows_and_puts_points_where_they_belong() -> None:
    figure = tradeoff()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("forgotten", "retained", "digits")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(
        ["original", "retrained reference", "finetune", "perturbed_sign", "perturbed_sign over retain weight"]
    )
    spots = {scatter.get_label(): tuple(scatter.get_offsets()[0]) for scatter in axes.collections}
    assert spots["perturbed_sign"] == (0.0, 0.91)
    assert spots["retrained reference"] == (0.0, 0.93)
    curve = next(line for line in axes.lines if line.get_label().startswith("perturbed_sign"))
    np.testing.assert_array_equal(curve.get_xydata(), [(0.0, 0.5), (0.2, 0.8), (0.6, 0.9)])
    assert sorted(texts(figure)) == ["0", "1", "10"]


def test_a_figure_leaves_no_trace_in_pyplot_and_can_be_written(tmp_path: object) -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    before = pyplot.get_fignums() if pyplot else []
    figure = tradeoff()
    figure.savefig(f"{tmp_path}/picture.png")
    assert (pyplot.get_fignums() if pyplot else []) == before


def test_all_points_lie_inside_the_axes_and_an_axis_is_never_narrower_than_six_points() -> None:
    figure = tradeoff(points={"a": (0.001, 0.9995)}, curves={}, reference=(0.0, 1.0), original=(0.002, 0.9991))
    (axes,) = figure.axes
    for (low, high), values in ((axes.get_xlim(), (0.0, 0.002)), (axes.get_ylim(), (0.9991, 1.0))):
        assert low < min(values)
        assert max(values) < high
        assert high - low > 0.03  # half of the six points may be beyond the possible


def test_a_crowd_around_the_reference_is_enlarged_where_there_is_room() -> None:
    crowd = {f"m{place}": (0.001 * place, 0.93 - 0.001 * place) for place in range(6)}
    given = {"points": crowd, "curves": {}, "reference": (0.0, 0.94), "original": (0.9, 0.95)}
    (axes,) = tradeoff(**given, title="").axes
    (view,) = axes.child_axes
    (low, high), (bottom, top) = view.get_xlim(), view.get_ylim()
    assert all(low < x < high and bottom < y < top for x, y in [*crowd.values(), (0.0, 0.94)])
    assert high < 0.01
    seen = {tuple(spot) for part in view.collections for spot in part.get_offsets().tolist()}
    assert seen == {*crowd.values(), (0.0, 0.94)}
    # Something lies where it would be, the points are not crowded, or they are few.
    lines = {"line": [(0.5, 0.93, "a"), (0.6, 0.9, "b")]}
    spread = {name: (10 * x, y) for name, (x, y) in crowd.items()}
    for change in ({"curves": lines}, {"points": spread, "original": (0.1, 0.9)}, {"points": {"m0": (0.0, 0.93)}}):
        (axes,) = tradeoff(**{**given, **change}).axes
        assert not axes.child_axes, change


def test_stops_at_one_spot_are_labelled_once() -> None:
    stops = [(0.0, 0.9, "0"), (0.0, 0.9, "1"), (0.0, 0.9, "10"), (0.5, 0.95, "100")]
    assert sorted(texts(tradeoff(curves={"knob": stops}))) == ["0", "100"]


def test_no_two_of_thirty_methods_look_alike_and_a_point_on_a_curve_has_its_colour() -> None:
    found = looks([f"method{i}" for i in range(30)], ["other"])
    assert len(set(found.values())) == 30
    found = looks(["finetune", "perturbed_sign"], ["perturbed_sign over mix"])
    assert found["perturbed_sign"][0] == looks(["x"], [])["x"][0]  # the first colour of the palette
    assert found["perturbed_sign"][0] != found["finetune"][0]


def test_tradeoff_refuses_nothing_and_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="expected at least one point, but got none"):
        tradeoff_figure({}, {}, None, None)
    with pytest.raises(ValueError, match=r"expected points\['a'\] to be two finite numbers, but got \(nan, 0.5\)"):
        tradeoff(points={"a": (float("nan"), 0.5)})
    with pytest.raises(ValueError, match=r"expected reference to be two finite numbers"):
        tradeoff(reference=(0.0, float("inf")))


def test_pictures_are_shown_in_rows_under_their_titles() -> None:
    image = torch.rand(3, 6, 5)
    grey = np.linspace(0, 1, 30, dtype=np.float32).reshape(1, 6, 5)
    mask = torch.arange(30).reshape(6, 5) % 3
    figure = picture_strip(
        [[image, mask, None], [grey, mask > 0, mask]], ["image", "mask", "after"], labels=["one", "two"]
    )
    axes = np.array(figure.axes).reshape(2, 3)
    assert [a.get_title() for a in axes[0]] == ["image", "mask", "after"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["one", "two"]
    assert [len(a.images) for a in axes.flat] == [1, 1, 0, 1, 1, 1]
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), image.permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(axes[1, 0].images[0].get_array()[..., 2], grey[0])
    shown = np.asarray(axes[0, 1].images[0].get_array())
    assert (shown[mask == 0] == 0).all()
    assert (shown[mask == 1] == 1).all()
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 3
    # A bool mask is black and white.
    np.testing.assert_array_equal(np.asarray(axes[1, 1].images[0].get_array())[..., 0], (mask > 0).numpy())


def test_picture_strip_refuses_what_is_no_strip() -> None:
    picture = torch.rand(4, 4)
    with pytest.raises(ValueError, match="expected at least one row and one title, but got 0 and 1"):
        picture_strip([], ["image"])
    with pytest.raises(ValueError, match="expected 2 pictures a row, one a title, but got 1"):
        picture_strip([[picture]], ["image", "mask"])
    with pytest.raises(ValueError, match="expected 1 labels, one a row, but got 2"):
        picture_strip([[picture]], ["image"], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"expected rows\[0\]\[0\] to be .* but got shape \(2, 4, 4\)"):
        picture_strip([[torch.rand(2, 4, 4)]], ["image"])
