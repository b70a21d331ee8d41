"""Who may have an action run, and what is said to others."""

import attrs
import pytest
from twisted.internet.defer import succeed

from gatewayd.access.keys import new_key
from gatewayd.admin.actions import Action, Actions, Admins, check_arguments
from gatewayd.errors import BadRequest, Forbidden, PathNotFound, Unauthenticated

KEY, DIGEST = new_key()
ADMINS = Admins.of({"ada": (DIGEST.removeprefix("sha256:"),)})
DRAIN = Action("drain", "Drain a replica.", succeed, {"replica": "Which one."})


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [(f"Bearer {KEY}", None), (f"bearer  {KEY} ", None), (None, KEY)],
    ids=["bearer", "spaces", "x-api-key"],
)
def test_the_owner_of_a_key_is_known(authorization, api_key):
    assert ADMINS.identify(authorization, api_key) == "ada"


@pytest.mark.parametrize(
    ("authorization", "api_key", "why"),
    [
        (None, None, "missing"),
        ("", "", "missing"),
        ("Bearer nonsense", None, "no key of an administrator"),
        (None, "nonsense", "no key of an administrator"),
        (f"Basic {KEY}", None, "missing"),
    ],
    ids=["nothing", "empty", "unknown bearer", "unknown key", "basic"],
)
def test_others_are_told_what_is_missing(authorization, api_key, why):
    with pytest.raises(Unauthenticated, match=why) as caught:
        ADMINS.identify(authorization, api_key)

    assert KEY not in str(caught.value)


def test_without_keys_nobody_may_and_the_key_of_the_flow_file_is_named():
    with pytest.raises(Forbidden, match=r"gateway\.admin_keys"):
        Admins.of({}).identify(f"Bearer {KEY}", None)


def test_an_action_is_found_by_its_name():
    actions = Actions()
    actions.add(DRAIN)

    assert actions.find("drain") is DRAIN
    with pytest.raises(PathNotFound) as caught:
        actions.find("drian")
    assert caught.value.hint == "there is no action 'drian'; there are: drain"


@pytest.mark.parametrize("given", [[], "x", None, {"replcia": 1}])
def test_arguments_are_checked(given):
    with pytest.raises(BadRequest, match="drain"):
        check_arguments(DRAIN, given)
    assert check_arguments(DRAIN, {"replica": "a/0"}) == {"replica": "a/0"}


def test_an_argument_that_is_required_has_to_be_there():
    action = attrs.evolve(DRAIN, required=("replica",))

    with pytest.raises(BadRequest, match="drain: replica is missing: Which one"):
        check_arguments(action, {})
    assert check_arguments(action, {"replica": 0}) == {"replica": 0}
