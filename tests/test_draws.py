"""The draws: the same bits everywhere, and good ones."""

import numpy as np
import pytest
from conftest import BACKEND
from keras import ops

from keras_dogs import backends
from keras_dogs.layers import draws


def keys(seed=0, step=0, count=8):
    return draws.make_keys(seed, ops.convert_to_tensor(step, "int32"), ops.arange(count, dtype="int32"))


def drawn(function, *arguments, seed=1, step=7, count=200_000):
    return ops.convert_to_numpy(function(keys(seed, step, count), *arguments))


def chi_square(numbers, bins):
    """Of integers in [0, bins), against all being equally frequent; its mean is bins - 1."""
    counts = np.bincount(numbers, minlength=bins)
    expected = len(numbers) / bins
    return ((counts - expected) ** 2 / expected).sum()


# The same bits. Written down once: a change of one bit would change every training that was ever recorded.


def every_draw(keys):
    return {
        "bits": draws.bits(keys, 0),
        "grid_bits": draws.grid_bits(keys, 1, 3)[:, 2],
        "uniform": draws.uniform(keys, 2),
        "integers": draws.integers(keys, 3, 1000),
        "bernoulli": draws.bernoulli(keys, 4, 0.5),
        "normal": draws.normal(keys, 5),
        "beta": draws.beta(keys, 6, 0.2),
        "noise": draws.noise(keys, 7, 3)[:, 2],
        "permutation": draws.permutation(keys, 8),
        "of the batch": draws.bits(draws.batch_keys(keys), 9),
    }


EXPECTED = {
    "bits": [1637215869, 472485148, 119597287, -1860001920, -977813615, -164940696, -1441009134, 607765141],
    "grid_bits": [-2039116331, -1073004274, 136123577, 1611269463, -674994254, 504797042, 1948077796, -1475201717],
    "uniform": [1033779872, 1059316244, 1054646428, 1053608186, 1050580552, 1036572672, 1039966008, 1062317149],
    "integers": [12, 550, 787, 147, 146, 267, 594, 760],
    "bernoulli": [0, 0, 1, 0, 0, 0, 1, 0],
    "normal": [-1074465125, -1078430067, 1053947386, 1032043097, 1065736012, -1076930983, -1088346011, 1030363905],
    "beta": [1017572365, 809846597, 1065306484, 933012162, 1028179706, 1001828081, 1064801884, 998607079],
    "noise": [1057770516, 1060835355, -1076273215, 1037031682, -1088578006, 1065818587, 1067634787, -1106149810],
    "permutation": [5, 6, 7, 0, 4, 2, 3, 1],
    "of the batch": [402258218],
}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_draws_are_these_bits_on_every_backend(mode):
    if mode == "compiled" and BACKEND == "torch":
        pytest.skip("Keras runs PyTorch eagerly, and torch.compile takes a compiler; the table of the tests does it")
    function = backends.compiled(every_draw) if mode == "compiled" else every_draw
    for name, values in function(keys(2**31 - 1, 12345)).items():
        values = ops.convert_to_numpy(values)
        values = values.view("int32") if values.dtype == "float32" else values.astype("int32")
        assert values.tolist() == EXPECTED[name], name


def test_a_draw_depends_on_the_place_in_the_batch_and_not_on_the_batch():
    whole = drawn(draws.bits, 3, count=100)
    part = draws.make_keys(1, ops.convert_to_tensor(7, "int32"), ops.arange(40, 60, dtype="int32"))
    assert np.array_equal(ops.convert_to_numpy(draws.bits(part, 3)), whole[40:60])


# Quality.


def test_bits_do_not_repeat_over_a_million_draws():
    assert len(np.unique(drawn(draws.bits, 0, count=1_000_000))) == 1_000_000


def test_every_byte_is_uniform():
    bits = drawn(draws.bits, 2).view("uint32")
    for shift in (0, 8, 16, 24):
        assert 170 < chi_square((bits >> shift) & 255, 256) < 345  # 255 degrees of freedom: 0.002 % on each side


def test_neighbours_are_independent():
    """In place, step, stream and seed: each of 16 x 16 kinds of pairs is as frequent as any other."""
    numbers = drawn(draws.uniform, 2)
    neighbours = {
        "place": np.roll(numbers, 1),
        "step": drawn(draws.uniform, 2, step=8),
        "stream": drawn(draws.uniform, 3),
        "seed": drawn(draws.uniform, 2, seed=2),
    }
    for name, other in neighbours.items():
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.01, name
        pairs = (numbers * 16).astype(int) * 16 + (other * 16).astype(int)
        assert 170 < chi_square(pairs, 256) < 345, name


def test_steps_of_one_place_are_uniform():
    """What one picture's place draws over a training."""
    numbers = [int(ops.convert_to_numpy(draws.integers(keys(3, step, 1), 0, 8))[0]) for step in range(400)]
    assert chi_square(np.array(numbers), 8) < 30


def test_grid_bits_are_uniform_and_differ_from_picture_to_picture():
    bits = ops.convert_to_numpy(draws.grid_bits(keys(1, 7, 4), 2, 50_000)).view("uint32")
    assert chi_square(bits.ravel() >> 24, 256) < 345
    assert abs(np.corrcoef(bits[0] >> 8, bits[1] >> 8)[0, 1]) < 0.02
    assert all(len(np.unique(row)) == 50_000 for row in bits)


def test_integers_stay_below_and_are_uniform():
    numbers = drawn(draws.integers, 0, 10)
    assert numbers.min() == 0 and numbers.max() == 9 and chi_square(numbers, 10) < 35
    assert drawn(draws.integers, 0, 2**22).max() < 2**22
    assert (drawn(draws.integers, 0, 1) == 0).all()


def test_bernoulli():
    assert not drawn(draws.bernoulli, 0, 0.0).any() and drawn(draws.bernoulli, 0, 1.0).all()
    assert abs(drawn(draws.bernoulli, 0, 0.3).mean() - 0.3) < 0.005


def test_normal():
    numbers = np.sort(drawn(draws.normal, 0))
    assert abs(numbers.mean()) < 0.01 and abs(numbers.std() - 1) < 0.01
    assert abs((numbers > 1.96).mean() - 0.025) < 0.002


@pytest.mark.parametrize("concentration", [0.2, 1.0, 4.0])
def test_beta(concentration):
    numbers = drawn(draws.beta, 0, concentration)
    assert 0 <= numbers.min() and numbers.max() <= 1
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(numbers.var() - 1 / (4 * (2 * concentration + 1))) < 0.003


def test_noise():
    numbers = ops.convert_to_numpy(draws.noise(keys(1, 7, 4), 2, 50_000))
    assert abs(numbers.mean()) < 0.01 and abs(numbers.std() - 1) < 0.01 and np.abs(numbers).max() < 3.46


def test_permutation():
    orders = np.array([ops.convert_to_numpy(draws.permutation(keys(1, step, 7), 0)) for step in range(200)])
    assert (np.sort(orders, axis=1) == np.arange(7)).all()
    for place in range(7):
        assert chi_square(orders[:, place], 7) < 25
