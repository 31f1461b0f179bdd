"""The book's figures look alike, and their colours can be told apart."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from rwkvlib.bookkit import PALETTE, use_style


def luminance(colour):
    """Relative luminance of a colour, as WCAG defines it."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def deuteranope(colour):
    """The colour as seen without green cones (Viénot, Brettel and Mollon 1999), in linear RGB."""
    rgb = np.array(mpl.colors.to_rgb(colour)) ** 2.2
    return np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]) @ rgb


def test_first_colours_stay_apart_without_green_cones():
    first = list(PALETTE.values())[:4]
    for one, other in itertools.combinations(first, 2):
        assert np.linalg.norm(deuteranope(one) - deuteranope(other)) > 0.1, (one, other)


def test_first_colours_stand_out_from_white():
    for colour in list(PALETTE.values())[:3]:
        assert 1.05 / (luminance(colour) + 0.05) > 3, colour


def test_style_replaces_earlier_settings_and_draws_on_white():
    with mpl.rc_context():
        mpl.rcParams["font.size"] = 40
        use_style()
        assert mpl.rcParams["font.size"] == 11
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE.values())
        figure = plt.figure()
        assert mpl.colors.same_color(figure.get_facecolor(), "white")
        plt.close(figure)
