"""What is added to a request's CPU, of rounds of several sets of gateways."""

from bench.watching import added
from bench.workers import Round


def rounds(*cpu_us: float) -> list[Round]:
    return [Round(each, 1000.0, (1.0,), 0.5) for each in cpu_us]


def test_it_is_the_median_of_all_rounds_with_the_medians_of_the_sets() -> None:
    first = [rounds(100, 200, 100), rounds(101, 202, 101), rounds(120, 240, 500)]
    second = [rounds(100, 100, 100), rounds(103, 103, 99), rounds(130, 130, 130)]

    assert added([first, second]) == ["+1.0 % (+1.0 to +3.0)", "+30.0 % (+20.0 to +30.0)"]
