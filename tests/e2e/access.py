"""What lets one in, for the tests on harness.py: users, and certificates by openssl(1)."""

import base64
import subprocess

from harness import own_hosts, temporary


def login(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(name="ca"):
    key, cert = temporary(f"{name}.key"), temporary(f"{name}.pem")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-days", 2,
            "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
    return key, cert


def certificate(ca, name, usage="serverAuth", addresses=None):
    """For that name and these addresses; for those of any raftd of this test, if there are none."""
    key, request, cert, extensions = (temporary(f"{name}.{end}") for end in ("key", "csr", "pem", "ext"))
    names = ",".join(f"IP:{address}" for address in addresses or own_hosts()[:20])
    extensions.write_text(f"subjectAltName=DNS:{name},{names}\nextendedKeyUsage={usage}\nauthorityKeyIdentifier=keyid\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", request, "-CA", ca[1], "-CAkey", ca[0], "-CAcreateserial", "-out", cert, "-days", 2,
            "-extfile", extensions)
    return key, cert
