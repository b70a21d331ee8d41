"""Parameters and results between Struct bytes and dicts."""

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages.structs import parameters_of, with_result
from gatewayd.pb import Struct

TEXT = st.text("ab_ \0é🙂", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def result_of(data: bytes, runtime_name: str = "a/rep-0"):
    return parameters_of(data)["__results__"][runtime_name]


@settings(deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=3))
def test_what_is_put_in_comes_out(result):
    assert result_of(with_result(b"", "a/rep-0", result)) == result


def test_numbers_come_out_as_floats():
    struct = Struct()
    struct.update({"n": 1, "deep": {"list": [2]}})

    found = parameters_of(struct.SerializeToString())

    assert (type(found["n"]), type(found["deep"]["list"][0])) == (float, float)


def test_a_result_stands_beside_what_is_there():
    struct = Struct()
    struct.update({"p": 1, "__results__": {"b/rep-0": {"x": 1}}})

    parameters = Struct.FromString(with_result(struct.SerializeToString(), "a/rep-0", {"y": 2}))

    assert MessageToDict(parameters) == {
        "p": 1.0,
        "__results__": {"b/rep-0": {"x": 1.0}, "a/rep-0": {"y": 2.0}},
    }


def test_numpy_values_and_tuples_become_plain():
    result = {"scalar": np.float32(0.5), "array": np.arange(2), "tuple": (1, "a")}

    assert result_of(with_result(b"", "a/rep-0", result)) == {
        "scalar": 0.5,
        "array": [0.0, 1.0],
        "tuple": [1.0, "a"],
    }


@pytest.mark.parametrize(
    ("result", "place"),
    [({"a": [1, object()]}, r"result of a/rep-0\.a\[1\]: a object"), ({1: "x"}, "the key 1 is not a string")],
)
def test_what_cannot_be_sent_is_named_with_its_place(result, place):
    with pytest.raises(TypeError, match=place):
        with_result(b"", "a/rep-0", result)


def test_bytes_that_are_no_struct_are_refused():
    with pytest.raises(ValueError, match=r"not a google\.protobuf\.Struct"):
        parameters_of(b"\xff\xff")
