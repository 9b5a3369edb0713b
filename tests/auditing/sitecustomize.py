"""Python imports this at the start of every process whose PYTHONPATH names this folder.

Writes to the file AUDIT_LOG what the process and its children ask of the network, and after `begin`
what the process opens, imports and runs.
"""

import os
import sys

_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
            "socket.gethostbyname", "urllib.Request")  # fmt: skip
_CODE = ("import", "open", "exec", "compile", "os.system", "os.exec", "os.posix_spawn",
         "subprocess.Popen", "ctypes.dlopen", "pickle.find_class", "marshal.loads")  # fmt: skip
_state = {"is_on": False, "is_busy": False}


def begin() -> None:
    """Notes from now on all that is opened, imported or run as well."""
    _state["is_on"] = True


def _hook(event: str, args: tuple) -> None:
    if _state["is_busy"] or not (event in _NETWORK or (_state["is_on"] and event in _CODE)):
        return
    _state["is_busy"] = True
    try:
        os.write(_log, f"{event}\t{args[:2]!r}\n".encode(errors="replace"))
    finally:
        _state["is_busy"] = False


sys.addaudithook(_hook)
