"""The example of a chat: its language model, and its page in a browser that shows words as they come."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import yaml

from tests.browser import Browser, find_chromium
from tests.paths import ROOT
from tests.processes import Gateway

FOLDER = ROOT / "examples" / "chat"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "docs_model.py"))


@pytest.fixture(scope="module")
def model(example: dict[str, Any]) -> Any:
    return example["Model"](example["DOCS"])


# -- the model ---------------------------------------------------------------------------------------------


def test_what_is_joined_again_is_the_text(example: dict[str, Any]) -> None:
    text = "Of one kind (or two): gateway.port, 12345."
    assert "".join(example["tokens_of"](text)) == f" {text}"


def test_a_distribution_is_one_and_knows_what_follows(example: dict[str, Any]) -> None:
    vocabulary = {token: place for place, token in enumerate(["\n", " a", " b", " c"])}
    grams = example["NGrams"](["a b", "a b", "a c"], vocabulary)
    found = grams.distribution(["\n", " a"])
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == vocabulary[" b"]
    assert found[vocabulary[" b"]] > found[vocabulary[" c"]] > found[vocabulary[" a"]] > 0
    assert grams.distribution([" never", " seen"]).sum() == pytest.approx(1)


def test_the_same_seed_writes_the_same_and_without_temperature_none_is_needed(model: Any) -> None:
    def written(**settings: Any) -> str:
        return "".join(islice(model.answer("What is a replica?", **settings), 40))

    assert written(seed=1, temperature=1.2) == written(seed=1, temperature=1.2)
    assert len({written(seed=seed, temperature=1.2) for seed in range(4)}) > 1
    assert written(temperature=0) == written(temperature=0)


def test_an_answer_is_near_the_question(model: Any) -> None:
    texts = ["".join(islice(model.answer("What is a replica?", seed=seed), 60)) for seed in range(5)]
    assert sum("replica" in text for text in texts) >= 3


def test_texts_that_share_words_are_near_to_each_other(example: dict[str, Any]) -> None:
    one, near, far = (example["vector"](text) for text in ("a red apple", "red apples", "the reactor"))
    assert one @ near > one @ far + 0.2
    assert np.linalg.norm(one) == pytest.approx(1)
    assert not example["vector"]("").any()


@pytest.mark.parametrize(
    ("stops", "pieces"),
    [
        ([], ["ab", "cd", "ef"]),
        (["cd"], ["a", "b"]),
        (["bc"], ["a"]),
        (["de", "f"], ["ab", "c"]),
        (["xyz"], ["ab", "cd", "ef"]),
        (["abc"], []),
    ],
)
def test_nothing_of_a_stop_is_written(example: dict[str, Any], stops: list[str], pieces: list[str]) -> None:
    found = list(example["until_stop"](["ab", "cd", "ef"], stops))
    assert "".join(found) == "".join(pieces)


# -- the page ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """The example as it is, but for its ports and the places of its files."""
    flow = yaml.safe_load((FOLDER / "flow.yml").read_text())
    settings = {key: value for key, value in flow["gateway"].items() if key not in ("port", "protocol")}
    settings["py_modules"] = [str(FOLDER / name) for name in settings["py_modules"]]
    (executor,) = flow["executors"]
    executor["py_modules"] = [str(FOLDER / name) for name in executor["py_modules"]]
    gateway = Gateway({"gateway": settings, "executors": [executor]}, protocols=["http"])
    yield gateway
    assert gateway.stop() == 0, gateway.output


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    browser = Browser(path)
    yield browser
    browser.stop()


def opened(browser: Browser, gateway: Gateway) -> None:
    browser.open(f"http://127.0.0.1:{gateway.ports['http']}/page/")
    browser.until("document.querySelector('#model option')?.value === 'docs'")


def ask(browser: Browser, question: str) -> None:
    browser.evaluate(f"document.getElementById('question').value = {json.dumps(question)}")
    browser.click("#send")


@pytest.mark.slow
def test_tokens_appear_one_after_the_other(browser: Browser, gateway: Gateway) -> None:
    opened(browser, gateway)
    browser.evaluate(
        """
        window.seen = [];
        new MutationObserver(() => {
          const text = document.querySelector('.assistant')?.textContent;
          if (text && text !== seen.at(-1)?.text) seen.push({ text, at: performance.now() });
        }).observe(document.getElementById('messages'), { subtree: true, childList: true });
        """
    )
    ask(browser, "What is a replica?")
    browser.until("document.querySelector('.assistant.pending')?.textContent.length > 0")
    browser.until("!document.querySelector('.pending')")
    seen = browser.evaluate("seen")
    texts = [each["text"] for each in seen]
    assert len(texts) > 4
    assert all(later.startswith(sooner) for sooner, later in pairwise(texts))
    assert len({each["at"] for each in seen}) > 4
    assert "tokens" in browser.evaluate("document.querySelector('.note').textContent")
    assert not browser.complaints()
    origin = f"http://127.0.0.1:{gateway.ports['http']}"
    assert all(url.startswith((origin, "data:")) for url in browser.asked()), browser.asked()


@pytest.mark.slow
def test_an_answer_can_be_stopped_and_a_failure_is_told(browser: Browser, gateway: Gateway) -> None:
    opened(browser, gateway)
    ask(browser, "How does a reload work?")
    browser.until("document.querySelector('.assistant.pending')?.textContent.length > 0")
    browser.click("#stop")
    browser.until("document.querySelector('.note')?.textContent === 'stopped'")
    assert browser.evaluate("document.getElementById('stop').hidden")
    browser.evaluate("document.querySelector('#model option').value = 'another'")
    ask(browser, "And now?")
    assert "does not exist" in browser.until("document.querySelector('.wrong')?.textContent")


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_used_on_a_telephone(browser: Browser, gateway: Gateway, dark: bool) -> None:
    opened(browser, gateway)
    browser.resize(390, 844, dark=dark)
    ask(browser, "x" * 200)
    browser.until("document.querySelector('.user') !== null")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("button:not([hidden])", "#question", "#temperature", "#model"):
        box = browser.evaluate(
            "(({left, right, bottom, width}) => [left, right, bottom, width])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        assert box[0] >= 0
        assert box[1] <= 390
        assert box[2] <= 844
        assert box[3] > 0
    colours = browser.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
    assert (sum(map(int, colours)) < 3 * 128) == dark
    browser.until("!document.querySelector('.pending')")
