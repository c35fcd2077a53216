"""optuna-dashboard as a service: read-only by default, with a password, and below a path of a proxy.

`make_application` checks each request and passes it on to optuna-dashboard. `cache` renews the dashboard when its
cached rows have changed, `page` changes its HTML and script, and `serve` runs it.
"""

from miiii_search.dashboard.app import make_application
from miiii_search.dashboard.auth import check_exposure, read_password
from miiii_search.dashboard.server import listen, serve

__all__ = ["check_exposure", "listen", "make_application", "read_password", "serve"]
