"""Autobahn's WebSocket test suite against its own echo server, without and with a gateway between them.

    python3 autobahn.py TOOLS GATEWAY [--all]

The gateway must change nothing: every case must end through it as it ends without it. The suite runs on CPython 2.7 only, which
is unpacked below TOOLS from Debian's last release that had it, with the wheels of its time; nothing is installed on the system.
Where that cannot be had the suite is skipped, and says so. `--all` adds the cases that take minutes: large messages, and
compression in every size.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

DEBIAN = "bullseye"
PACKAGES = ["python2.7-minimal", "libpython2.7-minimal", "libpython2.7-stdlib", "python2.7", "libffi7", "libssl1.1"]
WHEELS = """incremental==16.10.1 cryptography==3.3.2 zope.interface==4.6.0 jinja2==2.11.3 markupsafe==1.1.1 Werkzeug==1.0.1
klein==17.10.0 pyOpenSSL==19.1.0 service_identity==18.1.0 unittest2==1.1.0 six==1.16.0 cffi==1.14.6 enum34==1.1.10
ipaddress==1.0.23 setuptools==44.0.0 attrs==19.3.0 constantly==15.1.0 hyperlink==19.0.0 idna==2.8 pyasn1==0.4.8
pyasn1-modules==0.2.8 Automat==0.8.0 PyHamcrest==1.9.0 argparse==1.4.0 traceback2==1.4.0 linecache2==1.0.0 typing==3.7.4.3
pycparser==2.20 Twisted==19.10.0 pip==20.3.4 wheel==0.37.1""".split()
SOURCES = ["txaio==2.1.0", "autobahn==0.10.9", "autobahntestsuite==25.10.1"]
WANTED = " ".join([DEBIAN, *PACKAGES, *WHEELS, *SOURCES])

QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
GOOD = {"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"}

# The suite's echo server insists on its own port in `Host`, which a gateway passes on as the client wrote it.
TESTEE = """
import sys
from twisted.internet import reactor
from autobahntestsuite.testee import TesteeServerFactory
port = int(sys.argv[1])
factory = TesteeServerFactory("ws://127.0.0.1:%d" % port)
factory.externalPort = None
reactor.listenTCP(port, factory, interface="127.0.0.1")
reactor.run()
"""

GATEWAY = """
version: 1
access_log: off
listeners: {{ main: {{ bind: "127.0.0.1:{gateway}" }} }}
upstreams: {{ echo: {{ endpoints: ["127.0.0.1:{echo}"] }} }}
routes: [{{ name: echo, match: {{ path: "/*" }}, upstream: echo, upgrades: [websocket] }}]
"""


def quiet(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def unpack_python(tools):
    """CPython 2.7 below TOOLS, from the mirror that this system uses, with package lists of its own."""
    apt = tools / "apt"
    for folder in ["lists/partial", "cache/archives/partial", "debs"]:
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirrors = subprocess.run(targets, check=True, capture_output=True, text=True).stdout.split()
    mirror = next(uri for uri in mirrors if uri.rstrip("/").endswith("/debian"))
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} {DEBIAN} main\n")
    places = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={place}" for name, place in places.items()]
    quiet("apt-get", *options, "update")
    quiet("apt-get", *options, "download", *PACKAGES, cwd=apt / "debs")
    for package in (apt / "debs").glob("*.deb"):
        quiet("dpkg", "-x", package, tools / "python")
    shutil.rmtree(apt)


def environment(tools):
    libraries = tools / "python/usr/lib/x86_64-linux-gnu"
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(tools / "site")}


def set_up(tools):
    stamp = tools / "installed"
    if stamp.is_file() and stamp.read_text() == WANTED:
        return
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir(parents=True)
    print(f"installing CPython 2.7 and autobahntestsuite into {tools}", flush=True)
    unpack_python(tools)
    of_27 = ["--python-version", "27", "--implementation", "cp", "--abi", "cp27mu", "--only-binary=:all:"]
    platforms = [word for name in ["manylinux2010_x86_64", "manylinux1_x86_64", "any"] for word in ["--platform", name]]
    pip = [sys.executable, "-m", "pip"]
    for wheel in WHEELS:
        quiet(*pip, "download", "--no-deps", *of_27, *platforms, "--dest", tools / "wheels", wheel)
    for wheel in (tools / "wheels").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(tools / "site")
    # A namespace package, which only an installer would have made importable.
    (tools / "site/zope/__init__.py").touch()
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", tools / "site", *SOURCES]
    quiet(tools / "python/usr/bin/python2.7", *install, env=environment(tools))
    stamp.write_text(WANTED)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def run(tools, gateway, cases):
    work = tools / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    ports = {"echo": free_port(), "gateway": free_port()}
    (work / "testee.py").write_text(TESTEE)
    (work / "portcullis.yaml").write_text(GATEWAY.format(**ports))
    servers = [{"agent": name, "url": f"ws://127.0.0.1:{port}"} for name, port in ports.items()]
    spec = {"outdir": str(work / "reports"), "servers": servers, "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    (work / "spec.json").write_text(json.dumps(spec))
    python = tools / "python/usr/bin/python2.7"
    log = open(work / "log", "w", encoding="utf-8")
    to_log = {"stdout": log, "stderr": log, "cwd": work}
    started = []
    try:
        started.append(subprocess.Popen([python, "testee.py", str(ports["echo"])], env=environment(tools), **to_log))
        started.append(subprocess.Popen([gateway, "run", "portcullis.yaml"], **to_log))
        for port in ports.values():
            wait_for(port)
        client = [python, "-m", "autobahntestsuite.wstest", "-m", "fuzzingclient", "-s", "spec.json"]
        subprocess.run(client, env=environment(tools), check=True, **to_log)
    finally:
        for process in started:
            process.terminate()
            process.wait()
    return json.loads((work / "reports/index.json").read_text())


def compare(results):
    """How many cases ended well, and which ended otherwise through the gateway than without it."""
    echo, gateway = results["echo"], results.get("gateway", {})
    outcome = lambda case: [case.get("behavior"), case.get("behaviorClose")]
    differing = [(name, outcome(case), outcome(gateway.get(name, {}))) for name, case in sorted(echo.items())]
    differing = [row for row in differing if row[1] != row[2]]
    well = sum(case["behavior"] in GOOD and case["behaviorClose"] in GOOD for case in gateway.values())
    return len(echo), well, differing


def main():
    tools, gateway = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    try:
        set_up(tools)
    except (OSError, StopIteration, subprocess.CalledProcessError) as problem:
        print(f"SKIPPED: Autobahn's WebSocket suite: its CPython 2.7 cannot be had here: {problem}")
        return 0
    total, well, differing = compare(run(tools, gateway, ["*"] if "--all" in sys.argv else QUICK))
    for name, without, through in differing:
        print(f"case {name}: {without} without the gateway, {through} through it")
    print(f"Autobahn: {total} cases, {well} of them well through the gateway, {len(differing)} otherwise than without it")
    return 1 if differing or not total else 0


if __name__ == "__main__":
    sys.exit(main())
