"""Feeds texts to the addon's own parser: a JSON list in, for each what was read or what is wrong out."""

import json
import sys

from egress.routes import RoutesError, parse


def read(text):
    try:
        table = parse(text)
    except RoutesError as error:
        return {"error": str(error)}
    return {
        "routes": [
            {
                "name": route.name,
                "host": route.host,
                "port": route.port,
                "paths": list(route.paths or ()),
                "methods": sorted(route.methods or ()),
                "inject": [part.decode() for part in route.injection.fill("t0ken").header] if route.injection else None,
            }
            for route in table.routes
        ]
    }


json.dump([read(text) for text in json.load(sys.stdin)], sys.stdout)
