from .app import make_application
from .auth import check_exposure, read_password
from .page import parse_root_path
from .server import listen, serve

__all__ = ["check_exposure", "listen", "make_application", "parse_root_path", "read_password", "serve"]
