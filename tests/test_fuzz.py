"""Bytes that anybody may have written are read, or refused with an error of ours."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing import TARGETS, TOKENS, Change, change, seeds

CHANGES = st.lists(
    st.builds(
        Change,
        st.integers(0, 1 << 15),
        st.sampled_from((0, 1, 2, 8, 512)),
        st.sampled_from(TOKENS) | st.binary(max_size=12),
    ),
    max_size=6,
)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str, tmp_path: Path) -> None:
    """What the changes begin with."""
    for seed in seeds(target):
        TARGETS[target](seed, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_changed(target: str, data: st.DataObject, tmp_path: Path) -> None:
    """Whatever is changed, nothing comes out but a result or an error of ours."""
    seed = data.draw(st.sampled_from(seeds(target)) | st.binary(max_size=600))
    TARGETS[target](change(seed, data.draw(CHANGES)), tmp_path)
