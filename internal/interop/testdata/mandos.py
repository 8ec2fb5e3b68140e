# Prints what Debian's server, run as it is, makes of the mandos.conf in each
# folder named after it: its own main() up to where it has read the file and
# would open its log.
import importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader("mandos_server", sys.argv[1])
spec = importlib.util.spec_from_loader("mandos_server", loader)
server = importlib.util.module_from_spec(spec)
loader.exec_module(server)

class Settings(Exception):
    pass

def log_opened(*args, **kwargs):
    raise Settings(dict(sys._getframe(1).f_locals["server_settings"]))

server.initlogger = log_opened
out = []
for folder in sys.argv[2:]:
    sys.argv = ["mandos", "--configdir", folder]
    try:
        server.main()
    except Settings as e:
        out.append(e.args[0])
json.dump(out, sys.stdout)
