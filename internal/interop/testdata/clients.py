# Prints what Debian's server, run as it is, makes of each clients.conf named
# after it: its own function for the file, on its own defaults.
import configparser, importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader("mandos_server", sys.argv[1])
spec = importlib.util.spec_from_loader("mandos_server", loader)
server = importlib.util.module_from_spec(spec)
loader.exec_module(server)
out = []
for path in sys.argv[2:]:
    config = configparser.ConfigParser(server.Client.client_defaults)
    with open(path, encoding="utf-8") as f:
        config.read_file(f)
    clients = {}
    for name, c in server.Client.config_parser(config).items():
        v = {k: c[k] for k in ("host", "approved_by_default", "enabled", "key_id", "fingerprint")}
        v["checker"] = c["checker_command"]
        v["secret"] = c["secret"].hex()
        for k in ("timeout", "extended_timeout", "interval", "approval_delay", "approval_duration"):
            v[k] = c[k].days * 86400 + c[k].seconds
        clients[name] = v
    out.append(clients)
json.dump(out, sys.stdout)
