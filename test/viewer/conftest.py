# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser

from ttt3r_ros.viewer.page import Page


@pytest.fixture
def page() -> Iterator[Page]:
    with Page("127.0.0.1", 0, max_points=100) as page:
        yield page


@pytest.fixture
def browser(page) -> Iterator[Browser]:
    browser = Browser(page)
    yield browser
    browser.close()
