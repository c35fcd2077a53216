from .invite import create_local_worker
from .keys import Keys
from .liveness import Liveness

__all__ = [
    "Keys",
    "Liveness",
    "create_local_worker",
]
