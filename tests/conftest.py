"""What all tests share: a clean environment, and real servers, one of each a session."""

from __future__ import annotations

import gc
import os
import signal
import urllib.request

import pytest
from hypothesis import HealthCheck, settings

from tests.support.azure import AzureCloud
from tests.support.azure.challenges import forget_challenges
from tests.support.effort import VARIABLE
from tests.support.openbao import OpenBao
from tests.support.tls import TLSAuthority
from tests.support.tokenreview import Cluster

# Who starts the tests may ignore these (`nohup` and `&` do), and what they start would inherit it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or its making, is the machine's doing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_OURS = ("VAULT_", "BAO_", "CERTAGENT_", "AZURE_", "ISTIO_")
_OTHERS = (
    "ROOT_CA_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NETRC",
)

_LONG_TIMEOUT = 4 * 3600
"""Seconds that one test may take with `--long`."""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long forms: hours instead of minutes")


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads it
def pytest_configure(config):
    if config.getoption("--long"):
        os.environ[VARIABLE] = "1"
        config.option.timeout = _LONG_TIMEOUT


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Take out of the environment what would configure the agent, or send it elsewhere."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.upper() in _OTHERS:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def thawed():
    """Let what a verb has frozen in this process be collected again, so that leaks are found."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def unmeasured(request, monkeypatch):
    """Leave processes out of coverage, but for marked tests: each would start in twice the time."""
    if request.node.get_closest_marker("measured") is None:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """The authority behind the test servers' certificates."""
    return TLSAuthority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def cluster(tls):
    """A Kubernetes cluster, as far as Vault sees one; put back what you break of it."""
    with Cluster(tls) as running:
        yield running


@pytest.fixture(scope="session")
def openbao(tls):
    """A real OpenBao, also on TLS; each test makes mounts and policies of its own in it."""
    with OpenBao(tls) as running:
        yield running


@pytest.fixture
def azure(tls, monkeypatch):
    """Azure, and an environment that leads there: also for the processes that a test starts."""
    with AzureCloud(tls) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running
    # Who opened a URL first in the meantime made an opener for all, which goes on to the proxy.
    urllib.request.install_opener(None)  # type: ignore[arg-type]
    forget_challenges()
