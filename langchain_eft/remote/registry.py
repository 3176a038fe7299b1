"""The remote engines of this process, one for each endpoint: it is asked once what it serves."""

from __future__ import annotations

from langchain_eft.engine.open_engines import OpenEngines
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.engine import RemoteEngine

_engines = OpenEngines[Endpoint, RemoteEngine](RemoteEngine)
find_remote, open_remote, close_all = _engines.find, _engines.open, _engines.close_all
