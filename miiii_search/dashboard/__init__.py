"""optuna-dashboard as a service: read-only by default, with a password, and below a path of a proxy.

`make_application` checks each request and passes it on to optuna-dashboard. `cache` renews the dashboard when its
cached rows have changed, `page` changes its HTML and script, and `serve` runs it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
