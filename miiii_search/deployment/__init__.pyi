from .keys import Keys
from .liveness import Liveness
from .roles import create_local_worker, drop_worker, role_name

__all__ = ["Keys", "Liveness", "create_local_worker", "drop_worker", "role_name"]
