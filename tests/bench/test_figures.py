"""Runs of the benchmarks as values: medians, JSON, and what counts as worse."""

import attrs

from bench.cases import ALONE, CASES, GATEWAYD, JINA, NGHTTPX, Case
from bench.figures import Failed, Figures, Round, Run, from_json, merged, of_rounds, to_json, worse

CASE = Case("one", "one case", "one", "grpc_unary", "small", "grpc", 32)


def figures(cpu_us: float) -> Figures:
    return Figures(cpu_us=cpu_us, per_second=1000.0, load_busy=0.2, median_ms=1.5, p99_ms=3.25)


def run(failed: tuple[Failed, ...] = (), **cpu: float) -> Run:
    """One case; ``cpu`` of each side: ours, jina, nghttpx."""
    names = {"ours": GATEWAYD, "jina": JINA, "nghttpx": NGHTTPX}
    sides = {names[name]: figures(value) for name, value in cpu.items()}
    return Run("2026-01-01", "a machine", 7, 1.0, {"one": sides}, failed)


def test_figures_are_medians_over_rounds():
    rounds = [Round(cpu, 2 * cpu, 0.1, 1.0, cpu / 10) for cpu in (100.0, 900.0, 200.0)]

    assert of_rounds(rounds) == Figures(200.0, 400.0, 0.1, 1.0, 20.0)


def test_a_run_comes_back_from_json():
    saved = run((Failed("one", ALONE, "it broke\ntwice"),), ours=100.0, jina=700.0)

    assert from_json(to_json(saved)) == attrs.evolve(saved, failed=[Failed("one", ALONE, "it broke\ntwice")])


def test_times_is_the_others_cpu_over_ours():
    assert run(ours=100.0, jina=700.0).times("one") == 7.0
    assert run(ours=100.0, nghttpx=50.0).times("one", GATEWAYD, NGHTTPX) == 2.0


def test_there_are_no_times_without_figures_of_both():
    assert run(ours=100.0).times("one") is None
    assert run(ours=100.0, jina=700.0).times("another") is None


def test_a_ratio_within_the_tolerance_is_not_worse():
    assert worse(run(ours=100.0, jina=700.0), run(ours=120.0, jina=650.0), [CASE]) == []


def test_a_ratio_that_fell_is_named_with_both_figures():
    (sentence,) = worse(run(ours=100.0, jina=700.0), run(ours=200.0, jina=700.0), [CASE])

    assert sentence == "one case: Jina takes 3.50 times our CPU, where it took 7.00 times"


def test_a_slower_machine_is_not_worse():
    assert worse(run(ours=100.0, jina=700.0), run(ours=1000.0, jina=7000.0), [CASE]) == []


def test_a_ratio_to_nghttpx_counts_as_well():
    before, now = run(ours=100.0, jina=700.0, nghttpx=50.0), run(ours=100.0, jina=700.0, nghttpx=20.0)

    (sentence,) = worse(before, now, [CASE])

    assert "nghttpx takes 0.20 times our CPU, where it took 0.50" in sentence


def test_a_case_that_fails_now_is_worse():
    failed = run((Failed("one", GATEWAYD, "no answer"),), jina=700.0)

    assert worse(run(ours=100.0, jina=700.0), failed, [CASE]) == [
        "one case: no figures, where there were some: no answer"
    ]


def test_a_side_that_was_left_out_by_choice_is_not_worse():
    assert worse(run(ours=100.0, jina=700.0), run(ours=100.0), [CASE]) == []


def test_keys_of_cases_are_unique():
    assert len({case.key for case in CASES}) == len(CASES)


def test_cases_of_one_layout_are_together():
    layouts = [case.layout for case in CASES]

    assert layouts == sorted(layouts, key=list(dict.fromkeys(layouts)).index)


def test_cases_measured_again_replace_the_saved_ones():
    saved = run((Failed("one", JINA, "it broke"), Failed("two", JINA, "so did this")), ours=100.0)
    both = merged(saved, run(ours=90.0, jina=700.0))

    assert both.times("one") == 700.0 / 90.0
    assert both.failed == [Failed("two", JINA, "so did this")]
