"""ROS domains: each test and each evaluation has one of its own."""

from __future__ import annotations

import tempfile

import pytest

from embodied_rl.bringup.environment import private_domain, release_domain
from embodied_rl.core.errors import UserError


def test_a_domain_is_nobody_elses_until_it_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claimed = []
    with pytest.raises(UserError, match="saw all of them taken"):
        while len(claimed) < 200:
            claimed.append(private_domain())
    assert len(set(claimed)) == len(claimed) and 0 not in claimed and max(claimed) <= 101
    release_domain(claimed[7])
    assert private_domain() == claimed[7]
    for domain in claimed:
        release_domain(domain)
