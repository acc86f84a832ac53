"""The tests' own Azure, when it does not behave: what the SDK makes of each fault."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import pytest
import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from tests.support.azure import AzureCloud
from tests.support.azure.akv import throttled
from tests.support.azure.faults import (
    afterwards,
    answers,
    closes,
    drips,
    halves,
    hangs,
    meanwhile,
    resets,
)
from tests.support.azure.sdk import SDK
from tests.support.process import environment, until

SHORT = 0.2
"""Seconds that a client waits here for a server that will not answer."""


@pytest.fixture
def sdk():
    with SDK() as opened:
        yield opened


@pytest.fixture
def vault(azure):
    vault = azure.vault("mesh", azure.tenant())
    vault.set("ca-key", "a key")
    return vault


@pytest.fixture
def credential(sdk, vault):
    app = vault.tenant.application(secret="a-client-secret")
    vault.grant(app, "get", "set")
    return sdk.secret(vault.tenant, app)


@pytest.fixture
def client(sdk, vault, credential):
    return sdk.client(vault, credential)


@pytest.fixture
def hasty(sdk, vault, credential):
    """A client that does not wait long."""
    return sdk.client(vault, credential, read_timeout=SHORT, connection_timeout=SHORT)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_may_be_any_other(azure, client, status):
    azure.faults.inject(answers(status))

    with pytest.raises(HttpResponseError) as refused:
        client.get_secret("ca-key")

    assert refused.value.status_code == status
    assert "Retry-After" not in refused.value.response.headers


def test_throttling_may_say_when_to_come_back(azure, client):
    azure.faults.inject(answers(429, throttled(), Retry_After="8"))

    with pytest.raises(HttpResponseError, match="too many requests") as refused:
        client.get_secret("ca-key")

    assert refused.value.error.code == "Throttled"
    assert refused.value.response.headers["Retry-After"] == "8"


def test_a_fault_strikes_as_often_as_told_where_it_is_told(azure, client, vault):
    vault.set("root-cert", "roots")
    azure.faults.inject(answers(503), path="/secrets/ca-key$", times=2)

    assert client.get_secret("root-cert").value == "roots"
    for _ in range(2):
        with pytest.raises(HttpResponseError):
            client.get_secret("ca-key")
    assert client.get_secret("ca-key").value == "a key"


def test_a_fault_may_stay_until_it_is_cleared(azure, client):
    azure.faults.inject(answers(503), times=None)
    for _ in range(3):
        with pytest.raises(HttpResponseError):
            client.get_secret("ca-key")

    azure.faults.clear()

    assert client.get_secret("ca-key").value == "a key"


def test_a_fault_may_be_of_one_method(azure, client):
    azure.faults.inject(answers(503), method="PUT")

    assert client.get_secret("ca-key").value == "a key"
    with pytest.raises(HttpResponseError):
        client.set_secret("ca-key", "another key")


@pytest.mark.parametrize("status", [429, 503])
def test_entra_may_refuse_for_a_while(azure, sdk, vault, credential, status):
    azure.faults.inject(answers(status), to="entra", path="/token$")
    with pytest.raises(ClientAuthenticationError):
        sdk.client(vault, credential).get_secret("ca-key")

    # MSAL repeats such an answer for seconds without asking: a new credential asks.
    again = sdk.secret(vault.tenant, *vault.tenant.applications.values())

    assert sdk.client(vault, again).get_secret("ca-key").value == "a key"
    assert [exchange.status for exchange in azure.token_requests] == [status, 200]


def test_a_server_that_hangs_is_left(azure, hasty, vault):
    azure.faults.inject(hangs)

    with pytest.raises(ServiceResponseError, match="Read timed out"):
        hasty.get_secret("ca-key")

    assert azure.requests(vault) == [("GET", "/secrets/ca-key", None)]


def test_packets_may_be_dropped_on_the_way(azure, hasty):
    azure.faults.inject(hangs, method="CONNECT")

    with pytest.raises((ServiceRequestError, ServiceResponseError), match="timed out"):
        hasty.get_secret("ca-key")


@pytest.mark.parametrize("fault", [resets, closes])
def test_a_connection_may_break(azure, client, fault):
    azure.faults.inject(fault)

    # Behind a proxy urllib3 takes any break for the proxy's: a ServiceRequestError, though the
    # request was sent. Without one it is a ServiceResponseError.
    with pytest.raises(ServiceRequestError, match="Unable to connect to proxy"):
        client.get_secret("ca-key")


@pytest.mark.parametrize(
    ("fault", "said"), [(resets, "Connection reset"), (closes, "without response")]
)
def test_a_reset_is_one(azure, fault, said):
    # Without TLS: Python 3.11's takes a reset for an end.
    azure.faults.inject(fault, to="imds")

    with pytest.raises(requests.ConnectionError, match=said):
        requests.get("http://169.254.169.254/metadata/identity/oauth2/token", timeout=5)


def test_an_answer_may_lack_its_end(azure, client):
    client.get_secret("ca-key")
    azure.faults.inject(halves)

    with pytest.raises(HttpResponseError, match="IncompleteRead"):
        client.get_secret("ca-key")


def test_an_answer_may_come_slowly_enough_to_beat_every_timeout(azure, hasty):
    hasty.get_secret("ca-key")
    azure.faults.inject(drips(0.001))

    assert hasty.get_secret("ca-key").value == "a key"


def test_what_was_done_may_lose_its_answer(azure, client, vault):
    client.get_secret("ca-key")
    azure.faults.inject(afterwards(resets), method="PUT")

    with pytest.raises(ServiceRequestError):
        client.set_secret("ca-key", "another key")

    assert vault.version("ca-key").value == "another key"


def test_something_else_may_happen_just_before_the_answer(azure, client, vault):
    client.get_secret("ca-key")
    azure.faults.inject(meanwhile(lambda: vault.set("ca-key", "another key")))

    assert client.get_secret("ca-key").value == "another key"


WRONG_CERTIFICATES = pytest.mark.parametrize(
    ("certificate", "said"),
    [
        ("untrusted", "unable to get local issuer certificate"),
        ("wrong name", "Hostname mismatch"),
        ("expired", "certificate has expired"),
    ],
)


@WRONG_CERTIFICATES
def test_a_vault_may_show_a_wrong_certificate(azure, client, vault, certificate, said):
    azure.present(vault.host, certificate)

    with pytest.raises(ServiceRequestError, match=said):
        client.get_secret("ca-key")

    azure.present(vault.host, "good")
    assert client.get_secret("ca-key").value == "a key"


@WRONG_CERTIFICATES
def test_entra_may_show_a_wrong_certificate(azure, client, certificate, said):
    azure.present("login.microsoftonline.com", certificate)

    with pytest.raises(ClientAuthenticationError, match=said) as refused:
        client.get_secret("ca-key")

    # What was the network's comes as a refusal, without a status.
    assert isinstance(refused.value.__cause__, ServiceRequestError)
    assert refused.value.status_code is None


def test_a_process_with_the_environment_finds_its_way(azure, vault):
    script = "import requests, sys; print(requests.get(sys.argv[1]).status_code)"
    command = [sys.executable, "-c", script, f"{vault.url}/secrets/ca-key?api-version=7.6"]

    done = subprocess.run(command, env=environment({}), capture_output=True, check=True, timeout=20)

    assert done.stdout == b"401\n"


def test_what_is_not_azures_is_not_there(azure):
    with pytest.raises(requests.exceptions.ProxyError, match="503"):
        requests.get("https://example.com/", timeout=5)
    assert requests.get("http://example.com/", timeout=5).status_code == 503


def test_it_ends_at_once_also_where_somebody_still_waits(tls):
    before = threading.active_count()
    with AzureCloud(tls) as cloud:
        vault = cloud.vault("mesh", cloud.tenant())
        cloud.faults.inject(hangs)
        waiting = threading.Thread(target=_ask, args=(vault.url, cloud.environment), daemon=True)
        waiting.start()
        until(lambda: cloud.requests(vault))
    waiting.join(5)

    assert threading.active_count() == before


def _ask(url, env):
    with contextlib.suppress(requests.RequestException):
        proxies = {"https": env["HTTPS_PROXY"]}
        requests.get(url, proxies=proxies, verify=env["REQUESTS_CA_BUNDLE"], timeout=30)
