"""Feeds texts to the addon's own parser: a JSON list in, for each what was read or what is wrong out."""

import json
import sys

from egress.routes import RoutesError, parse


class EverySlot(dict):
    def get(self, _slot, _default=None):
        return "t0ken"


def read(text):
    try:
        table = parse(text, EverySlot())
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
                "inject": [route.injection.header, route.injection.value.decode()] if route.injection else None,
            }
            for route in table.routes
        ]
    }


json.dump([read(text) for text in json.load(sys.stdin)], sys.stdout)
