"""Makes the calls on standard input (JSON: path, interface, member, texts as
arguments), over the bus at the address given, and signals, and prints those
that the bus let through. Then it listens until a line comes, and prints what it heard."""
import json
import sys

import gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib

bus = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None, None)
through = []
calls = json.loads(sys.stdin.readline())
for name in ("se.recompile.Mandos", "se.bsnet.fukt.Mandos"):
    for path, interface, member, args in calls:
        body = GLib.Variant("(%s)" % ("s" * len(args)), tuple(args)) if args else None
        try:
            bus.call_sync(name, path, interface, member, body, None, Gio.DBusCallFlags.NONE, 30000, None)
        except GLib.Error as e:
            if "org.freedesktop.DBus.Error.AccessDenied" in e.message:
                continue
        through.append("%s %s %s.%s" % (name, path, interface, member))
refused = set()


def note(connection, message, incoming):
    if incoming and message.get_error_name() == "org.freedesktop.DBus.Error.AccessDenied":
        refused.add(message.get_reply_serial())
    return message


bus.add_filter(note)
sent = {}
owner = bus.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetNameOwner",
                      GLib.Variant("(s)", ("se.recompile.Mandos",)), None, Gio.DBusCallFlags.NONE, 30000, None).unpack()[0]
for name in ("se.recompile.Mandos", "se.bsnet.fukt.Mandos", owner):
    message = Gio.DBusMessage.new_signal("/", "org.freedesktop.DBus.Properties", "PropertiesChanged")
    message.set_destination(name)
    _, serial = bus.send_message(message, Gio.DBusSendMessageFlags.NONE)
    sent[serial] = "a signal to " + name
bus.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Peer", "Ping",
              None, None, Gio.DBusCallFlags.NONE, 30000, None)  # the answers to them have come
through += [what for serial, what in sent.items() if serial not in refused]
heard = []
bus.signal_subscribe(None, None, None, None, None, Gio.DBusSignalFlags.NONE,
                     lambda c, sender, path, interface, member, args: heard.append("%s.%s" % (interface, member)))
bus.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Peer", "Ping",
              None, None, Gio.DBusCallFlags.NONE, 30000, None)  # the subscription is there
print("listening", flush=True)
sys.stdin.readline()
# All that the bus has sent before this answer has come.
bus.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Peer", "Ping",
              None, None, Gio.DBusCallFlags.NONE, 30000, None)
context = GLib.MainContext.default()
while context.iteration(False):
    pass
print(json.dumps({"Through": through, "Heard": [h for h in heard if not h.startswith("org.freedesktop.DBus.Name")]}))
