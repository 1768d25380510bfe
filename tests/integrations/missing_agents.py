"""A module that needs an extra; see `test_public_names`."""

import langchain  # noqa: F401  # that it is imported is what it is for
