"""Random mutations of bytes and of JSON, the same in every run."""

import copy
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

PROFILE = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
HOSTILE = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2, 3.5, 10**9, 2**31, 2**63, 10**30, float("nan"), float("inf")]),
    st.sampled_from(["", "a", "3", "../../elsewhere", "\0", "\ud800", "é\u2028", "x" * 5000, [], {}, [[]], [None]]),
    st.integers(-5, 5),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def mutated_json(draw: Any, content: Any) -> Any:
    """Replaces, removes, doubles, exchanges or adds one to three values at any depth."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(changed))
        if not places:
            return draw(HOSTILE)
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "exchange", "add", "nest"]))
        if kind == "replace":
            parent[key] = draw(HOSTILE)
        elif kind == "remove":
            del parent[key]
        elif kind == "exchange":
            other, other_key = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = copy.deepcopy(other[other_key])
        elif kind == "nest":
            parent[key] = [parent[key]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(HOSTILE)
        else:
            parent.append(draw(HOSTILE))
    return changed


def _places(value: Any) -> Any:
    """All containers with the keys of what they hold."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@st.composite
def mutated_bytes(draw: Any, content: bytes) -> bytes:
    """Cuts off, replaces, removes, doubles or inserts a part."""
    start = draw(st.integers(0, len(content)))
    stop = min(len(content), start + draw(st.sampled_from([0, 1, 2, 8, 64, len(content)])))
    part: bytes = draw(
        st.one_of(
            st.binary(max_size=9),
            st.sampled_from([b"", b"\0" * 64, b"\xff" * 8, b"\xef\xbb\xbf", b"\r\n", b'"', b"[" * 5000, b"9" * 5000]),
            st.just(content[start:stop] * 2),
        )
    )
    return content[:start] + part + content[stop:]
