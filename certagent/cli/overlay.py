"""`certagent overlay istiod|gateway`: what Helm or kustomize needs to bring the agent into a pod.

Nothing is asked of a cluster or a store: what is printed follows from the configuration and the
versions alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certagent.cli.options import add_configuration, environment
from certagent.config.decoding import load
from certagent.errors import UsageError
from certagent.kubernetes import overlay
from certagent.kubernetes.istio import GATEWAY, ISTIOD, NATIVE_SIDECARS, version
from certagent.kubernetes.options import PLACEHOLDER, Options
from certagent.kubernetes.rendering import yaml
from certagent.kubernetes.volumes import AZURE_TOKEN_FILE

if TYPE_CHECKING:
    from certagent.config.model import Config
    from certagent.kubernetes.istio import Reader, Version

READERS = {each.chart: each for each in (ISTIOD, GATEWAY)}
DIRECTORY = "/etc/istio-ca"
"""Where istiod's CA is published unless somebody says otherwise: not among its own mounts."""

NAMES = {
    "istiod": ("istiod", "istio-system"),
    "gateway": ("istio-ingressgateway", "istio-ingress"),
}
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.description = (
        "Print what brings the agent of this configuration into a pod of Istio's: values for"
        " Istio's chart, or with a flag another form. A configuration file is mounted from the"
        " ConfigMap that --config-map prints."
    )
    parser.add_argument("reader", choices=tuple(READERS), help="whose pod")
    add_configuration(parser, "--source", "--directory")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--kustomize", action="store_true", help="a strategic merge patch of the Deployment"
    )
    form.add_argument(
        "--injection-template",
        action="store_true",
        help="gateway: values for the istiod chart, for gateway charts before 1.27",
    )
    form.add_argument(
        "--config-map", action="store_true", help="the ConfigMap with the configuration file"
    )
    parser.add_argument(
        "--audience",
        default=Options().audience,
        help="of the token for Vault, default %(default)s; empty: the pod's own token is used",
    )
    add_pod(parser)


def add_pod(parser: argparse.ArgumentParser) -> None:
    """Add what a configuration does not say about the pod that it is for."""
    defaults = Options()
    versions = (("istio", defaults.istio), ("kubernetes", defaults.kubernetes))
    for name, default in versions:
        parser.add_argument(
            f"--{name}",
            metavar="VERSION",
            type=_version,
            default=default,
            help="of the cluster, or newer; default %(default)s",
        )
    parser.add_argument("--image", default=defaults.image, type=_image, help="the agent's image")
    parser.add_argument(
        "--secret",
        metavar="DIR=NAME",
        action="append",
        default=[],
        type=_secret,
        help="the Secret to mount where the configuration reads files; may be repeated",
    )
    parser.add_argument(
        "--openshift", action="store_true", help="leave the user to the namespace's range"
    )
    parser.add_argument("--name", type=_resource, help="the Deployment's, and of the ConfigMap")
    parser.add_argument("--namespace", type=_resource, help="where the pod runs")


def run(arguments: argparse.Namespace) -> int:
    """Print one document; raises `UsageError` and `ConfigurationError`."""
    reader = READERS[arguments.reader]
    name, namespace = NAMES[reader.chart]
    arguments.name = arguments.name or name
    arguments.namespace = arguments.namespace or namespace
    environ = _environ(arguments, reader)
    config = load(arguments.config, environ, here=False)
    sys.stdout.write(_text(arguments, reader, config, environ))
    if arguments.image == PLACEHOLDER and not arguments.config_map:
        sys.stderr.write(f"{PLACEHOLDER} is a placeholder: name your image with --image.\n")
    return 0


def _environ(arguments: argparse.Namespace, reader: Reader) -> dict[str, str]:
    """Return what the agent in the pod is to have: not this shell's token, nor its empty places."""
    environ = environment(arguments)
    environ.pop("VAULT_TOKEN", None)
    if reader is ISTIOD and not arguments.config and not environ.get("ROOT_CA_DIR"):
        environ["ROOT_CA_DIR"] = DIRECTORY
    environ["AZURE_FEDERATED_TOKEN_FILE"] = (
        environ.get("AZURE_FEDERATED_TOKEN_FILE") or AZURE_TOKEN_FILE
    )
    return environ


def _text(
    arguments: argparse.Namespace, reader: Reader, config: Config, environ: dict[str, str]
) -> str:
    options = Options(
        image=arguments.image,
        istio=arguments.istio,
        kubernetes=arguments.kubernetes,
        audience=arguments.audience,
        config_map=f"certagent-{arguments.name}" if arguments.config else "",
        secrets=dict(arguments.secret),
        openshift=arguments.openshift,
    )
    if arguments.config_map:
        return yaml(_config_map(arguments, options))
    remarks = remarks_for(reader, options)
    if arguments.injection_template:
        if reader is not GATEWAY:
            raise UsageError(
                "istiod's own pod is not injected, so no template reaches it.",
                hint="--kustomize prints a patch of its Deployment, for any version of Istio.",
            )
        template = yaml(overlay.injection_template(config, environ, options), remarks)
        values = {"sidecarInjectorWebhook": {"templates": {"certagent": template}}}
        return _heading(arguments, options) + yaml(values)
    if arguments.kustomize:
        where = {"name": arguments.name, "namespace": arguments.namespace}
        document = overlay.patch(reader, config, environ, options, **where)
    elif reader is ISTIOD:
        document = overlay.istiod_values(config, environ, options)
    else:
        document = overlay.gateway_values(config, environ, options)
    return _heading(arguments, options) + yaml(document, remarks)


def _config_map(arguments: argparse.Namespace, options: Options) -> dict[str, Any]:
    if not arguments.config:
        raise UsageError(
            "There is no configuration file to make a ConfigMap of.",
            hint="Give it with --config; what the environment says needs no ConfigMap.",
        )
    text = Path(arguments.config).read_text(encoding="utf-8")
    return overlay.config_map(text, name=options.config_map, namespace=arguments.namespace)


def _heading(arguments: argparse.Namespace, options: Options) -> str:
    """Return what it is for, and what it needs besides."""
    reader = READERS[arguments.reader]
    cluster = (
        f"on Kubernetes {NATIVE_SIDECARS} or newer (native sidecars)"
        if options.native
        else f"on Kubernetes before {NATIVE_SIDECARS} (no native sidecars)"
    )
    if arguments.kustomize:
        lines = [f"A patch of the Deployment {arguments.name}, {cluster}."]
    elif arguments.injection_template:
        lines = [
            f"For Istio's `istiod` chart, {cluster}: a template for gateways, which take it",
            'by podAnnotations: {inject.istio.io/templates: "gateway,certagent"}',
        ]
    else:
        lines = [
            f"For Istio's `{reader.chart}` chart {reader.init_containers} or newer, {cluster}."
        ]
        if reader is ISTIOD and not options.native:
            lines.append("It publishes once. --kustomize prints a patch with a sidecar that stays.")
    if options.config_map:
        lines.append(f"The same with --config-map prints its ConfigMap, {options.config_map}.")
    return "".join(f"# {line}\n" for line in lines)


def remarks_for(reader: Reader, options: Options) -> dict[str, str]:
    """Return the reasons that stand beside lines, by the line."""
    if reader is ISTIOD:
        who, ready = "istiod", "istiod starts when a verified set stands in ROOT_CA_DIR"
    else:
        who, ready = "the proxy", "the proxy starts when every required certificate is published"
    native = {
        "restartPolicy: Always": f"a native sidecar: it starts before {who}, and stays",
        "startupProbe:": ready,
    }
    return {
        'ISTIO_MULTIROOT_MESH: "true"': "istiod takes new roots while it runs",
        **(native if options.native else {}),
        "runAsUser: 1337": f"{who}'s own user; leave both out on OpenShift",
    }


# argparse shows what an `ArgumentTypeError` says, and of a `ValueError` the function's name.


def _version(text: str) -> Version:
    try:
        return version(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _image(text: str) -> str:
    """Refuse what is no image: an empty one is a shell's variable that is not set."""
    if not re.fullmatch(r"\S+", text) and "{{" not in text:
        raise argparse.ArgumentTypeError(f"expected an image such as {PLACEHOLDER}, got {text!r}")
    return text


def _secret(text: str) -> tuple[str, str]:
    directory, _, name = text.rpartition("=")
    if not os.path.isabs(directory) or not _RESOURCE.fullmatch(name):  # noqa: PTH117 - in the pod
        raise argparse.ArgumentTypeError(
            f"expected DIR=NAME, such as /etc/vault-ca=vault-ca, got {text!r}"
        )
    return directory, name


def _resource(text: str) -> str:
    if not _RESOURCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} cannot be a resource's name")
    return text
