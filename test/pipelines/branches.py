"""Conditionals of every operator and every type that can be compared, in every place where there is one."""

import datetime
import enum
from typing import Optional

from flytekit import conditional, task, workflow


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@task
def add(x: int, y: int) -> int:
    return x + y


@task
def half(x: int) -> float:
    return x / 2


@task
def say(text: str) -> str:
    return text


@task
def number(x: int) -> str:
    return f"number {x}"


@task
def maybe(x: int) -> Optional[int]:
    return x if x > 0 else None


@task
def slow(x: int) -> int:
    return x * 10


@task
def refuse(x: int) -> str:
    if x == 3:
        raise ValueError(f"I do not take {x}")
    return str(x)


@task
def when() -> datetime.datetime:
    return datetime.datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=datetime.timezone.utc)


@workflow
def elifs(x: int = 5) -> str:
    y = add(x=x, y=1)
    return (
        conditional("size")
        .if_(y > 100)
        .then(say(text="huge"))
        .elif_((y >= 6) & (x < 6))
        .then(number(x=y))
        .elif_((y == 1) | (x != 0))
        .then(say(text="some"))
        .else_()
        .then(say(text="none"))
    )


@workflow
def floats(x: int = 7) -> str:
    f = half(x=x)
    return conditional("half").if_(f == 3).then(say(text="three")).elif_(f > 3.4).then(say(text="more")).else_().then(say(text="less"))


@workflow
def texts(name: str = "bob") -> str:
    t = say(text=name)
    return conditional("order").if_(t < "b").then(say(text="before b")).elif_(t <= "bob").then(say(text="up to bob")).else_().then(say(text="after"))


@workflow
def flags(yes: bool = True, no: bool = False) -> str:
    return conditional("flags").if_(no.is_true()).then(say(text="no")).elif_(yes.is_true()).then(say(text="yes")).else_().then(say(text="neither"))


@workflow
def nones(x: int = 0) -> str:
    m = maybe(x=x)
    return conditional("none").if_(m.is_none()).then(say(text="nothing")).else_().then(say(text="something"))


@workflow
def after_none() -> str:
    return nones(x=3)


@workflow
def times() -> str:
    t = when()
    noon = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    return conditional("time").if_(t > noon).then(say(text="later")).else_().then(say(text="not later"))


@workflow
def deeper(x: int) -> str:
    return conditional("inner").if_(x > 8).then(say(text="above 8")).else_().then(number(x=x))


@workflow
def nested(x: int = 7) -> str:
    y = add(x=x, y=1)
    return (
        conditional("outer")
        .if_(y < 0)
        .then(say(text="below"))
        .else_()
        .then(conditional("within").if_(y > 7).then(deeper(x=y)).else_().then(say(text="small")))
    )


@workflow
def waits(x: int = 1) -> str:
    z = slow(x=4)  # the condition does not need it
    return conditional("waits").if_(x == 1).then(number(x=z)).else_().then(say(text="other"))


@workflow
def inside(x: int = 2) -> str:
    a = deeper(x=x)
    return say(text=a)


@workflow
def chained(x: int = 2) -> int:
    b = conditional("first").if_(x == 2).then(add(x=x, y=40)).else_().then(add(x=x, y=0))
    return add(x=b, y=1)


@workflow
def two_outputs(x: int = 2) -> tuple[str, int]:
    s = conditional("text").if_(x == 2).then(say(text="two")).else_().then(say(text="not two"))
    n = conditional("number").if_(x != 2).then(add(x=0, y=0)).else_().then(add(x=x, y=x))
    return s, n


@workflow
def refused(x: int = 3) -> str:
    return conditional("picky").if_(x == 1).then(say(text="one")).elif_(x == 2).then(say(text="two")).else_().fail("three is too many")


@workflow
def fails(x: int = 3) -> str:
    return conditional("picky").if_(x == 3).then(refuse(x=x)).else_().then(say(text="fine"))


expected = {
    "branches.elifs": "number 6",
    "branches.floats": "more",
    "branches.texts": "up to bob",
    "branches.flags": "yes",
    "branches.nones": "nothing",
    "branches.after_none": "something",
    "branches.times": "later",
    "branches.nested": "number 8",
    "branches.waits": "number 40",
    "branches.inside": "number 2",
    "branches.chained": 43,
    "branches.two_outputs": ("two", 4),
}
