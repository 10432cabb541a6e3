"""What a repr may show."""

from typing import ClassVar

from layerfs.discreet import Discreet


class Login(Discreet, frozen=True):
    """As those of `layerfs.registry`."""

    hidden: ClassVar[frozenset[str]] = frozenset({"password"})

    user: str
    password: str = "planted"


def test_a_hidden_field_is_in_no_repr() -> None:
    login = Login("robot")

    assert repr(login) == f"{login}" == "Login(user='robot')"
    assert login.__rich_repr__() == [("user", "robot")]


def test_a_hidden_field_counts_for_equality_and_hash() -> None:
    assert Login("robot") == Login("robot")
    assert hash(Login("robot")) == hash(Login("robot"))
    assert Login("robot") != Login("robot", "another")
