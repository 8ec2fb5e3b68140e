"""Looks at the server at the bus address given as d-feet does: walks the tree
by Introspect, makes GLib's proxy for each interface, and reads each property
that can be read. Prints what it found as JSON."""
import json
import sys

import gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib

NAME = "se.recompile.Mandos"
bus = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1],
    Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
    None, None)
found = {"Objects": {}, "Properties": 0, "Errors": [], "Managed": []}


def call(path, interface, method, args):
    return bus.call_sync(NAME, path, interface, method, args, None, Gio.DBusCallFlags.NONE, 30000, None)


def walk(path):
    xml = call(path, "org.freedesktop.DBus.Introspectable", "Introspect", None).unpack()[0]
    node = Gio.DBusNodeInfo.new_for_xml(xml)
    found["Objects"][path] = [i.name for i in node.interfaces]
    for interface in node.interfaces:
        proxy = Gio.DBusProxy.new_sync(bus, Gio.DBusProxyFlags.NONE, interface, NAME, path, interface.name, None)
        for p in interface.properties:
            if not p.flags & Gio.DBusPropertyInfoFlags.READABLE:
                continue
            where = "%s %s.%s" % (path, interface.name, p.name)
            try:
                value = call(path, "org.freedesktop.DBus.Properties", "Get",
                             GLib.Variant("(ss)", (interface.name, p.name))).get_child_value(0).get_variant()
            except GLib.Error as e:
                found["Errors"].append("%s: %s" % (where, e.message))
                continue
            found["Properties"] += 1
            if value.get_type_string() != p.signature:
                found["Errors"].append("%s is %s, not %s" % (where, value.get_type_string(), p.signature))
            if proxy.get_cached_property(p.name) is None:
                found["Errors"].append("%s: GetAll hasn't it" % where)
    for child in node.nodes:
        walk(path.rstrip("/") + "/" + child.path)


walk("/")
manager = Gio.DBusObjectManagerClient.new_sync(
    bus, Gio.DBusObjectManagerClientFlags.NONE, NAME, "/", None, None, None)
found["Managed"] = sorted(o.get_object_path() for o in manager.get_objects())
print(json.dumps(found))
