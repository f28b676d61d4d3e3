"""The operator's page: batches, edits and the system, rendered here, for people with a browser."""

from intake.pages import actions, images, routes, sign_in  # noqa: F401  # they name their routes
from intake.pages.context import PageContext
from intake.pages.context import install as install_page

__all__ = ["PageContext", "install_page"]
