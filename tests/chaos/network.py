"""A network of namespaces in which single directions of single links can be cut: packets are lost without a word.

Needs root and `ip netns`; Network.why_not() says what is missing. The coordinator listens on loopback addresses only, so
each namespace has one of 127.9.0.0/24 on its virtual card, and lets it out.
"""
import os
import subprocess

_NOBODY = "02:00:00:00:00:fe"  # a card that does not exist


def _ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class Network:

    def __init__(self, names):
        self._prefix = f"accrue-{os.getpid()}-"
        self._hub = self._prefix + "hub"
        self.address = {name: f"127.9.0.{index + 1}" for index, name in enumerate(names)}

    @staticmethod
    def why_not():
        """Why there can be no network here; empty: there can."""
        if os.geteuid() != 0:
            return "it needs root"
        name = f"accrue-try-{os.getpid()}"
        try:
            made = _ip("netns", "add", name, check=False)
            if made.returncode != 0:
                return f"ip netns add: {made.stderr.strip()}"
            for link in (("type", "bridge"), ("type", "veth", "peer", "name", "peer")):
                made = _ip("-n", name, "link", "add", "try" + link[1][0], *link, check=False)
                if made.returncode != 0:
                    return f"ip link add {' '.join(link)}: {made.stderr.strip()}"
            return ""
        except FileNotFoundError:
            return "there is no program ip"
        finally:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def __enter__(self):
        try:
            _ip("netns", "add", self._hub)
            _ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._hub, "link", "set", "bridge", "up")
            for name in self.address:
                self._add(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        for space in [self._hub, *(self._prefix + name for name in self.address)]:
            _ip("netns", "del", space, check=False)

    def _add(self, name):
        space, port = self._prefix + name, f"port{list(self.address).index(name)}"
        _ip("netns", "add", space)
        _ip("-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", "card", "netns", space)
        _ip("-n", self._hub, "link", "set", port, "master", "bridge", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", "card", "up")
        # Loopback addresses go out over the card, and come in.
        _ip("netns", "exec", space, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        _ip("-n", space, "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        _ip("-n", space, "address", "add", self.address[name] + "/24", "dev", "card")

    def prefix(self, name):
        """What runs a command at this place."""
        return ["ip", "netns", "exec", self._prefix + name]

    def cut(self, sender, receiver):
        """Nothing that `sender` sends to `receiver` arrives any more; the other way is as before."""
        _ip("-n", self._prefix + sender, "neigh", "replace", self.address[receiver], "lladdr", _NOBODY, "dev", "card",
            "nud", "permanent")

    def heal(self, sender, receiver):
        _ip("-n", self._prefix + sender, "neigh", "del", self.address[receiver], "dev", "card", check=False)
