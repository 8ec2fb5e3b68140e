# Prints, as JSON, what Python's configparser makes of each file in a folder:
# every value after interpolation, or the kind of error.
import configparser
import json
import pathlib
import sys


def read(path):
    parser = configparser.ConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (configparser.Error, UnicodeDecodeError) as e:
        return {"error": type(e).__name__}
    sections = []
    for name in [parser.default_section] + parser.sections():
        if name == parser.default_section:
            keys = parser.defaults()
        else:
            keys = parser.options(name)
        values = {}
        for key in keys:
            try:
                values[key] = {"value": parser.get(name, key)}
            except configparser.Error as e:
                values[key] = {"error": type(e).__name__}
        sections.append({"name": name, "values": values})
    return {"sections": sections}


files = sorted(pathlib.Path(sys.argv[1]).glob("*.ini"))
json.dump({f.name: read(f) for f in files}, sys.stdout, indent=1, sort_keys=True)
print()
