"""`python serve_scripted.py SETTINGS`: a server with scripted engines; settings are JSON."""

import json
import sys
from pathlib import Path

from quaver.cli.output import warn
from quaver.core.errors import QuaverError
from quaver.server.run import serve
from quaver.server.settings import read_settings

try:
    settings = read_settings(None, {"port": 0, "model": "scripted", **json.loads(sys.argv[1])})
    serve(settings, (sys.executable, str(Path(__file__).with_name("scripted.py"))))
except QuaverError as error:
    warn(str(error))
    raise SystemExit(2) from None
